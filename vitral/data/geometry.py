"""Crop, resize, shift and flip of one image, drawn once as a value; all pure functions.

The same value is applied to the image by its filter, to its mask by the nearest pixel and to its
boxes by arithmetic, so that what belongs together stays together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vitral.data.jpeg import REDUCTIONS
from vitral.data.resize import Box, Size, crop, resize
from vitral.errors import DataError, RequestError

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.config.run import AugmentSettings

CROP_TRIES = 10
# Two numbers per try, two for the position, one for the flip.
NUM_UNIFORMS = 2 * CROP_TRIES + 3
_DOWN, _RIGHT, _FLIP = NUM_UNIFORMS - 3, NUM_UNIFORMS - 2, NUM_UNIFORMS - 1
# A line of 1 x 50,000 pixels would be resized to 224 x 11,200,000, to keep 224 of them.
MAX_STRETCH = 32


class Geometry(NamedTuple):
    """Where each pixel of the model's input comes from; fields are in the order of application."""

    source: Size
    """Height and width of the decoded image, as shown: EXIF's orientation is applied before."""
    crop: Box
    """Cut out of the source first."""
    resized: Size
    """Height and width to which this crop is resized."""
    box: Box
    """Cut out of the resized crop: top, left, and the height and width of the result."""
    shift: tuple[int, int] = (0, 0)
    """Pixels by which the result is then moved down and right; negative: up and left."""
    flip: bool = False
    """Whether it is mirrored left to right in the end."""

    @property
    def size(self) -> Size:
        """Height and width of the result."""
        return self.box[2:]

    @property
    def max_reduction(self) -> int:
        """The factor by which the source may be decoded smaller without enlarging the crop."""
        spare = min(self.crop[2] / self.resized[0], self.crop[3] / self.resized[1])
        return max((reduction for reduction in REDUCTIONS if reduction <= spare), default=1)

    def reduced(self, size: Size) -> Geometry:
        """Return the same geometry for the source decoded smaller.

        A JPEG decoder that divides the sides by r turns the pixels r i to r i + r - 1 into pixel i,
        so a coordinate y becomes y / r. The crop's edges are rounded to whole pixels, halves up:
        then a crop of at least r n pixels keeps at least n.

        Args:
            size: height and width that it was decoded at: 1, 1/2, 1/4 or 1/8 of the source's,
                rounded up.

        Returns:
            A geometry whose crop lies within half a pixel of the smaller image, within one and a
            half where EXIF rotated an image of sides that the reduction does not divide.

        Raises:
            DataError: the decoder gives no such size.
        """
        if size == self.source:
            return self
        reduction = _reduction_between(self.source, size)
        top, left, height, width = self.crop
        edges = (top, left, top + height, left + width)
        top, left, bottom, right = ((2 * e + reduction) // (2 * reduction) for e in edges)
        # Even a crop of a fraction of a pixel at the far end keeps one.
        top, left = min(top, size[0] - 1), min(left, size[1] - 1)
        crop_box = (top, left, max(bottom - top, 1), max(right - left, 1))
        return self._replace(source=size, crop=crop_box)


def draw_geometry(
    image_size: Size,
    uniforms: np.ndarray,
    *,
    settings: AugmentSettings,
    preprocessing: Preprocessing,
) -> Geometry:
    """Draw the geometry of an image for training.

    Args:
        image_size: height and width of the whole image.
        uniforms: (NUM_UNIFORMS or more,) in [0, 1), of this example in this epoch.
        settings: `crop` with its own settings, and `flip`.
        preprocessing: of the model.
    """
    size, shift = preprocessing.size, (0, 0)
    if settings.crop == "inception":
        aspect = size[1] / size[0]
        crop_box = inception_box(image_size, uniforms, settings=settings, aspect=aspect)
        resized, box = size, (0, 0, *size)
    elif settings.crop == "random":
        crop_box = (0, 0, *image_size)
        resized, box = random_box(size, uniforms, share=settings.crop_share)
    else:
        crop_box, resized, box = _central_boxes(image_size, preprocessing)
        if settings.crop == "shift":
            shift = draw_shift(size, uniforms, share=settings.shift)
    flip = settings.flip and bool(uniforms[_FLIP] < 0.5)
    return Geometry(image_size, crop_box, resized, box, shift, flip)


def central_geometry(image_size: Size, preprocessing: Preprocessing) -> Geometry:
    """Return the geometry of an image in evaluation and prediction.

    Args:
        image_size: height and width of the whole image.
        preprocessing: of the model.
    """
    return Geometry(image_size, *_central_boxes(image_size, preprocessing))


def apply_to_image(
    pixels: np.ndarray, geometry: Geometry, preprocessing: Preprocessing
) -> np.ndarray:
    """Crop, resize and shift an image; what a shift lets in repeats the edge.

    It is not mirrored: images are mirrored in the batch, on the device, which is faster. Masks and
    boxes are mirrored by `apply_to_mask` and `apply_to_boxes`.

    Args:
        pixels: (H, W, C) uint8 or float32 in 0..255, of the geometry's source.
        geometry: drawn for this image.
        preprocessing: interpolation, antialias and rounding.

    Returns:
        (h, w, C) in 0..255: uint8, or float32 without rounding; maybe a view of `pixels`.

    Raises:
        DataError: an image of another size than the geometry's source.
    """
    _check_source(pixels, geometry, "an image")
    image = resize(crop(pixels, geometry.crop), geometry.resized, preprocessing, box=geometry.box)
    return _shifted(image, *geometry.shift) if any(geometry.shift) else image


def apply_to_mask(mask: np.ndarray, geometry: Geometry, *, fill: int) -> np.ndarray:
    """Crop, resize, shift and mirror a mask; each pixel takes the value of the nearest one.

    Pixel i of n to which a crop of m is resized has its centre at (i + 1/2) m / n of the crop,
    which lies in its pixel floor((2 i + 1) m / (2 n)): whole numbers, so that nothing is rounded.

    Args:
        mask: (H, W) of any type, of the height and width of the geometry's source.
        geometry: drawn for the image that the mask belongs to.
        fill: value of the pixels that a shift lets in: the label that does not count, often 255.

    Returns:
        (h, w) of the mask's type.

    Raises:
        DataError: not a mask of the image's height and width.
        RequestError: a fill that the mask's type does not hold.
    """
    if mask.ndim != 2:
        raise DataError(f"a mask of shape {mask.shape}: give one label for each pixel, (H, W)")
    _check_source(mask, geometry, "a mask")
    _check_fill(fill, mask.dtype)
    rows, has_row = _nearest(geometry, axis=0)
    columns, has_column = _nearest(geometry, axis=1)
    if geometry.flip:
        columns, has_column = columns[::-1], has_column[::-1]
    result: np.ndarray = mask[rows[:, None], columns]
    result[~has_row] = fill
    result[:, ~has_column] = fill
    return result


def apply_to_boxes(
    boxes: np.ndarray, geometry: Geometry, *, min_area: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Crop, resize, shift and mirror the boxes of objects, cut off where the image ends.

    Args:
        boxes: (M, 4) of x1, y1, x2, y2 in pixels of the geometry's source, where x runs right and
            the first pixel reaches from 0 to 1: one pixel is (0, 0, 1, 1).
        geometry: drawn for the image that the boxes belong to.
        min_area: share of a box's area that must be left, 0 to 1; 0: any.

    Returns:
        Boxes (M, 4) float64 of x1, y1, x2, y2 in pixels of the result, and which of them (M,) bool
        are kept: those of which more than nothing and at least `min_area` is left.

    Raises:
        DataError: boxes of another shape, or whose second corner lies before the first.
        RequestError: a share outside of 0 to 1.
    """
    if not 0 <= min_area <= 1:
        raise RequestError(f"min_area={min_area}: give a share of the box's area, 0 to 1")
    corners = _corners(boxes)
    (top, left, height, width), (down, right) = geometry.crop, geometry.shift
    scale = np.array([geometry.resized[1] / width, geometry.resized[0] / height])
    corners = (corners - np.array([left, top])) * scale - np.array(geometry.box[1::-1])
    whole = _areas(corners)
    # Twice, since what lies outside before a shift is not what the shift lets in.
    end = np.array([geometry.size[1], geometry.size[0]])
    corners = (corners.clip(0, end) + np.array([right, down])).clip(0, end)
    areas = _areas(corners)
    # A box that is whole may have lost a digit of its area by the shift.
    is_kept = (areas > 0) & (areas >= (min_area - 1e-9) * whole)
    if geometry.flip:
        corners[:, :, 0] = geometry.size[1] - corners[:, ::-1, 0]
    return corners.reshape(-1, 4), is_kept


def size_of(pixels: np.ndarray) -> Size:
    """Return height and width of pixels (H, W, ...)."""
    height, width = pixels.shape[:2]
    return height, width


def flips(uniforms: np.ndarray) -> np.ndarray:
    """Return which images (N,) bool are mirrored, by their random numbers (N, ...).

    Equals the decisions of `draw_geometry` for a batch, where the settings flip at all.
    """
    flip_left_right: np.ndarray = uniforms[:, _FLIP] < 0.5
    return flip_left_right


def _central_boxes(image_size: Size, preprocessing: Preprocessing) -> tuple[Box, Size, Box]:
    """Return `crop`, `resized` and `box` of the centre."""
    crop_box = (0, 0, *image_size)
    if preprocessing.resize == "shorter":
        crop_box = box_without_far_ends(image_size, preprocessing.size)
    resized = resized_size(crop_box[2:], preprocessing)
    return crop_box, resized, central_box(resized, preprocessing)


def box_without_far_ends(image_size: Size, size: Size) -> Box:
    """Return the central box of an image, cut to at most 32 times the length that `size` needs."""
    height, width = image_size
    most_height = MAX_STRETCH * math.ceil(width * size[0] / size[1])
    most_width = MAX_STRETCH * math.ceil(height * size[1] / size[0])
    down, right = max(0, height - most_height) // 2, max(0, width - most_width) // 2
    return (down, right, height - 2 * down, width - 2 * right)


def resized_size(image_size: Size, preprocessing: Preprocessing) -> Size:
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
    spare = (size[0] - preprocessing.size[0], size[1] - preprocessing.size[1])
    if preprocessing.geometry == "torchvision":
        return (round(spare[0] / 2), round(spare[1] / 2), *preprocessing.size)
    return (spare[0] // 2, spare[1] // 2, *preprocessing.size)


def inception_box(
    image_size: Size,
    uniforms: np.ndarray,
    *,
    settings: AugmentSettings,
    aspect: float = 1.0,
) -> Box:
    """Return a random box: its area uniform, its aspect ratio log-uniform, its position uniform.

    Args:
        image_size: height and width.
        uniforms: (NUM_UNIFORMS or more,) in [0, 1).
        settings: `min_area` and `max_aspect`.
        aspect: width / height of the model's input, around which the box's lies.

    Returns:
        The first of ten tries that fits the image, else the largest central box in the allowed
        aspect.

    Source: Szegedy et al. (arXiv 1409.4842), section 6.
    """
    height, width = image_size
    spread = math.log(settings.max_aspect)
    drawn = uniforms[:NUM_UNIFORMS].tolist()  # Python's own numbers compute several times as fast
    for uniform_area, uniform_aspect in zip(
        drawn[: 2 * CROP_TRIES : 2], drawn[1 : 2 * CROP_TRIES : 2], strict=True
    ):
        area = height * width * (settings.min_area + (1 - settings.min_area) * uniform_area)
        ratio = aspect * math.exp(spread * (2 * uniform_aspect - 1))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(drawn[_DOWN] * (height - box_height + 1))
            left = int(drawn[_RIGHT] * (width - box_width + 1))
            return (top, left, box_height, box_width)
    ratio = min(max(width / height, aspect / settings.max_aspect), aspect * settings.max_aspect)
    box_height = max(1, min(height, round(width / ratio)))
    box_width = max(1, min(width, round(height * ratio)))
    return ((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_box(size: Size, uniforms: np.ndarray, *, share: float) -> tuple[Size, Box]:
    """Return the size to squash an image to, and a random box of the model's `size`.

    Source: BiT (arXiv 1912.11370), section 3.3, and big_transfer's `input_pipeline_tf2_or_jax.py`:
    448 squashed to, 384 cut.
    """
    height, width = (max(side, round(side / share)) for side in size)
    top = int(uniforms[_DOWN] * (height - size[0] + 1))
    left = int(uniforms[_RIGHT] * (width - size[1] + 1))
    return (height, width), (top, left, *size)


def draw_shift(size: Size, uniforms: np.ndarray, *, share: float) -> tuple[int, int]:
    """Return by how many pixels an image moves down and right, at most a share of its sides."""
    most_down, most_right = round(size[0] * share), round(size[1] * share)
    down = most_down - int(uniforms[_DOWN] * (2 * most_down + 1))
    right = most_right - int(uniforms[_RIGHT] * (2 * most_right + 1))
    return down, right


def _reduction_between(source: Size, size: Size) -> int:
    for reduction in REDUCTIONS:
        if size == tuple(-(-side // reduction) for side in source):
            return reduction
    raise DataError(
        f"{size[0]} x {size[1]} pixels are no image of {source[0]} x {source[1]} decoded at "
        f"1/{', 1/'.join(map(str, REDUCTIONS))} of its sides: draw a geometry for their size"
    )


def _shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Move an image (h, w, C); what comes in repeats the edge."""
    height, width = image.shape[:2]
    up, left = max(-down, 0), max(-right, 0)
    padding = ((max(down, 0), up), (max(right, 0), left), (0, 0))
    return np.pad(image, padding, mode="edge")[up : up + height, left : left + width]


def _nearest(geometry: Geometry, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each row (or column) of the result comes from, before mirroring.

    Returns:
        Indices (n,) into the source's rows, and which of them (n,) bool exist: the others come in
        by the shift.
    """
    length = geometry.size[axis]
    positions = np.arange(length) - geometry.shift[axis]
    exists = (positions >= 0) & (positions < length)
    twice_centre = 2 * (positions.clip(0, length - 1) + geometry.box[axis]) + 1
    within = twice_centre * geometry.crop[axis + 2] // (2 * geometry.resized[axis])
    return geometry.crop[axis] + within, exists


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Return boxes as corners (M, 2, 2) of x and y, checked."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"boxes of shape {boxes.shape}: give (M, 4) of x1, y1, x2, y2")
    corners = boxes.astype(np.float64).reshape(-1, 2, 2)
    in_order = (corners[:, 0] <= corners[:, 1]).all(axis=1)
    if not in_order.all():
        row = int(np.flatnonzero(~in_order)[0])
        raise DataError(
            f"box {row} is {boxes[row].tolist()}: give x1, y1, x2, y2 with x1 <= x2 and y1 <= y2"
        )
    return corners


def _areas(corners: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (corners[:, 1] - corners[:, 0]).prod(axis=1)
    return areas


def _check_fill(fill: int, dtype: np.dtype) -> None:
    if np.array(fill).astype(dtype) != fill:
        raise RequestError(
            f"fill={fill} does not fit into masks of {dtype}: give a value of that type, or masks "
            "of a larger one"
        )


def _check_source(pixels: np.ndarray, geometry: Geometry, kind: str) -> None:
    if pixels.shape[:2] != geometry.source:
        height, width = pixels.shape[:2]
        raise DataError(
            f"{kind} of {height} x {width} pixels for a geometry of {geometry.source[0]} x "
            f"{geometry.source[1]}: give what belongs to that image, at its height and width"
        )
