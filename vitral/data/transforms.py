"""From decoded pixels to the model's size, with or without random changes; all pure functions."""

import math

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import luma
from vitral.data.jpeg import REDUCTIONS
from vitral.data.levels import to_eight_bit_range
from vitral.data.randaugment import UNIFORMS_OF_CHANGE, randaugment
from vitral.data.resize import Box, Size, crop, resize
from vitral.errors import DataError
from vitral.spec.preprocessing import Preprocessing
from vitral.spec.run import AugmentSettings

CROP_TRIES = 10
# Two numbers a try, two for the place, one for the flip.
NUM_UNIFORMS = 2 * CROP_TRIES + 3
# A line of 1 x 50,000 pixels would be resized to 224 x 11,200,000, to keep 224 of them.
MAX_STRETCH = 32


def preprocess(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring decoded pixels to the model's size, as in evaluation and prediction.

    Args:
        pixels: (H, W, C), as decoded: uint8, or values of more than eight bits.
        preprocessing: of the model.

    Returns:
        (h, w, C) in 0..255: uint8, or float32 without rounding.
    """
    pixels = match_model(pixels, preprocessing)
    if preprocessing.resize == "shorter":
        pixels = without_far_ends(pixels, preprocessing.size)
    size = resized_size(pixels.shape[:2], preprocessing)
    return resize(pixels, size, preprocessing, box=central_box(size, preprocessing))


def augment(
    pixels: np.ndarray,
    numbers: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
) -> np.ndarray:
    """Crop, resize and change decoded pixels for training; they are mirrored in the batch.

    Args:
        pixels: (H, W, C), as decoded.
        numbers: (num_uniforms(settings),) in [0, 1), of this example in this epoch.
        settings: which changes.
        preprocessing: of the model.

    Returns:
        (h, w, C) in 0..255, as `preprocess` does.
    """
    numbers, numbers_of_changes = numbers[:NUM_UNIFORMS], numbers[NUM_UNIFORMS:]
    if settings.crop == "inception":
        pixels = match_model(pixels, preprocessing)
        height, width = preprocessing.size
        box = inception_box(pixels.shape[:2], numbers, settings=settings, aspect=width / height)
        image = resize(crop(pixels, box), preprocessing.size, preprocessing)
    elif settings.crop == "random":
        pixels = match_model(pixels, preprocessing)
        size, box = random_box(preprocessing.size, numbers, share=settings.crop_share)
        image = resize(pixels, size, preprocessing, box=box)
    else:
        image = preprocess(pixels, preprocessing)
        if settings.crop == "shift":
            image = shift(image, numbers[-3], numbers[-2], share=settings.shift)
    if settings.randaugment:
        image = randaugment(image, numbers_of_changes, magnitude=settings.randaugment_magnitude)
    return image


def flips(numbers: np.ndarray) -> np.ndarray:
    """Return which images (N,) bool are mirrored, by their random numbers (N, ...)."""
    mirrored: np.ndarray = numbers[:, NUM_UNIFORMS - 1] < 0.5
    return mirrored


def crop_reduction(
    image_size: Size,
    numbers: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
) -> int:
    """Return by how much a JPEG can be decoded smaller so that its crop still fills the model.

    `augment` then draws the box anew, with the same numbers, on the smaller image: its edges move
    by less than two of the model's pixels, and once in 500 times another of the ten tries fits.
    """
    if settings.crop != "inception":
        return 1
    height, width = preprocessing.size
    box = inception_box(image_size, numbers, settings=settings, aspect=width / height)
    spare = min(box[2] / height, box[3] / width)
    return max((reduction for reduction in REDUCTIONS if reduction <= spare), default=1)


def num_uniforms(settings: AugmentSettings) -> int:
    """Return how many random numbers an example needs in an epoch."""
    return NUM_UNIFORMS + UNIFORMS_OF_CHANGE * settings.randaugment


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bring a batch (N, C, H, W) of 0..255 into the range that the model wants, on its device."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(1, -1, 1, 1) * 255
    std = torch.tensor(preprocessing.std, device=images.device).view(1, -1, 1, 1) * 255
    return images.to(torch.float32, copy=True).sub_(mean).div_(std)


def match_model(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring decoded pixels into 0..255 and into the model's channels, at their own size.

    Raises:
        DataError: numbers of channels that have no one meaning for the model.
    """
    pixels = to_eight_bit_range(pixels, preprocessing.levels)
    own, channels = pixels.shape[2], preprocessing.channels
    if own == channels:
        return pixels
    if not fits_channels(own, channels):
        raise DataError(f"an image of {own} channels for a model of {channels}")
    return pixels.repeat(3, axis=2) if own == 1 else luma(pixels)


def fits_channels(own: int, wanted: int) -> bool:
    """Say whether pixels can be given to a model: only grey and RGB turn into each other."""
    return own == wanted or {own, wanted} == {1, 3}


def without_far_ends(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Cut both ends alike of an image 32 times longer than the crop's shape needs it to be."""
    height, width = pixels.shape[:2]
    most_height = MAX_STRETCH * math.ceil(width * size[0] / size[1])
    most_width = MAX_STRETCH * math.ceil(height * size[1] / size[0])
    down, right = max(0, height - most_height) // 2, max(0, width - most_width) // 2
    return pixels[down : height - down, right : width - right]


def resized_size(image_size: tuple[int, ...], preprocessing: Preprocessing) -> Size:
    """Return the height and width to which a whole image is resized, before the centre is cut.

    Source: timm's `transforms_imagenet_eval` and `ResizeKeepRatio`, torchvision's `Resize`,
    Hugging Face's `get_resize_output_image_size`, big_vision's `resize_small`.
    """
    height, width = image_size
    # 224 / (224 / 422) is 421.99999999999994.
    to_height, to_width = (
        math.floor(side / preprocessing.crop_share + 1e-6) for side in preprocessing.size
    )
    if preprocessing.resize == "squash":
        return (to_height, to_width)
    if preprocessing.geometry == "tensorflow":
        single = np.float32  # in which TensorFlow computes, and which decides between halves
        factor = max(single(to_height) / single(height), single(to_width) / single(width))
        return (round(single(height) * factor), round(single(width) * factor))
    if preprocessing.geometry == "torchvision" and to_height != to_width:
        ratio = min(height / to_height, width / to_width)
        return (round(height / ratio), round(width / ratio))
    if to_height * width >= to_width * height:
        return (to_height, to_height * width // height)
    return (to_width * height // width, to_width)


def central_box(size: Size, preprocessing: Preprocessing) -> Box:
    """Return the central box of the model's size in an image that has been resized to `size`.

    Source: torchvision's `CenterCrop`; Hugging Face's `center_crop` and big_vision's
    `central_crop` round down.
    """
    spare = [side - own for side, own in zip(size, preprocessing.size, strict=True)]
    if preprocessing.geometry == "torchvision":
        return (round(spare[0] / 2), round(spare[1] / 2), *preprocessing.size)
    return (spare[0] // 2, spare[1] // 2, *preprocessing.size)


def inception_box(
    image_size: tuple[int, ...],
    numbers: np.ndarray,
    *,
    settings: AugmentSettings,
    aspect: float = 1.0,
) -> Box:
    """Return a random box: its area uniform, its aspect ratio log-uniform, its place uniform.

    Args:
        image_size: height and width.
        numbers: (NUM_UNIFORMS,) in [0, 1).
        settings: `min_area` and `max_aspect`.
        aspect: width / height of the model's input, around which the box's lies.

    Returns:
        The first of ten tries that fits the image, else the largest central box in the allowed
        aspect.

    Source: Szegedy et al. (arXiv 1409.4842), section 6.
    """
    height, width = image_size
    spread = math.log(settings.max_aspect)
    drawn = numbers[:NUM_UNIFORMS].tolist()  # Python's own numbers compute several times as fast
    for number_area, number_aspect in zip(
        drawn[: 2 * CROP_TRIES : 2], drawn[1 : 2 * CROP_TRIES : 2], strict=True
    ):
        area = height * width * (settings.min_area + (1 - settings.min_area) * number_area)
        ratio = aspect * math.exp(spread * (2 * number_aspect - 1))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(drawn[-3] * (height - box_height + 1))
            left = int(drawn[-2] * (width - box_width + 1))
            return (top, left, box_height, box_width)
    ratio = min(max(width / height, aspect / settings.max_aspect), aspect * settings.max_aspect)
    box_height = max(1, min(height, round(width / ratio)))
    box_width = max(1, min(width, round(height * ratio)))
    return ((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_box(size: Size, numbers: np.ndarray, *, share: float) -> tuple[Size, Box]:
    """Return the size to squash an image to, and a box of the model's `size` at a random place.

    Source: BiT (arXiv 1912.11370), section 3.3, and big_transfer's `input_pipeline_tf2_or_jax.py`:
    448 squashed to, 384 cut.
    """
    height, width = (max(side, round(side / share)) for side in size)
    top = int(numbers[-3] * (height - size[0] + 1))
    left = int(numbers[-2] * (width - size[1] + 1))
    return (height, width), (top, left, *size)


def shift(
    image: np.ndarray, number_down: float, number_right: float, *, share: float
) -> np.ndarray:
    """Move an image (h, w, C) by at most a share of its sides; what comes in repeats the edge."""
    height, width = image.shape[:2]
    most_down, most_right = round(height * share), round(width * share)
    top = int(number_down * (2 * most_down + 1))
    left = int(number_right * (2 * most_right + 1))
    padding = ((most_down, most_down), (most_right, most_right), (0, 0))
    return np.pad(image, padding, mode="edge")[top : top + height, left : left + width]
