"""Diabetic retinopathy, photographs of the retina, prepared when read as VTAB's `btgraham-300`.

Ben Graham's preparation scales the eye to one radius, subtracts the local average, and fills the
outside of a circle with grey. OpenCV's integer arithmetic is reproduced here. Compared with
versions 4.10 and 5.0, blurring and the circle are equal, and scaling differs by 1 in at most 7 of
1,000 values of tiny images, 3 of 100,000 of usual ones; other versions, and decoders of JPEG, may
differ more. So images only nearly equal those of TensorFlow Datasets.

Sources: https://www.kaggle.com/c/diabetic-retinopathy-detection/data; TensorFlow Datasets 4.4.0,
`image_classification/diabetic_retinopathy_detection.py`; OpenCV 4,
`modules/imgproc/src/{resize,smooth.dispatch,drawing}.cpp`.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vitral.data.datasets.published import DatasetFiles, File, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.data.decode import MAX_PIXELS, UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.sources.store import Content, Store
from vitral.errors import DataError

TRAIN, TEST = "train.zip", "test.zip"
TRAIN_LABELS, TEST_LABELS = "trainLabels.csv", "retinopathy_solution.csv"
TEST_LABELS_SOURCE = (
    "https://storage.googleapis.com/kaggle-forum-message-attachments/90528/2877/"
    "retinopathy_solution.csv"
)
CLASSES = ("No DR", "Mild", "Moderate", "Severe", "Proliferative DR")
"""By level, 0 to 4."""
USAGES = {"validation": "Public", "test": "Private"}
"""Kaggle's subsets of the test images, for its ranking during the contest and at its end."""
QUALITY = 72
NOTE = (
    "images are prepared when read, nearly as TensorFlow Datasets does with OpenCV: `vitral data "
    "pack` keeps them prepared"
)
_KAGGLE = "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"
FILES = (
    File("train.zip", f"{_KAGGLE} (joined: cat train.zip.0* > train.zip)", unpacked="train"),
    File("test.zip", f"{_KAGGLE} (joined: cat test.zip.0* > test.zip)", unpacked="test"),
    File("trainLabels.csv", f"{_KAGGLE} (in trainLabels.csv.zip)"),
    File(
        "retinopathy_solution.csv",
        TEST_LABELS_SOURCE,
        "a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9",
    ),
)


def read_retinopathy(place: DatasetFiles) -> Published:
    """Read `train.zip` and `test.zip`, or their folders, by the tables of levels.

    Raises:
        DataError: a table can't be read, or states a level that is none.
    """
    train = _rows(place, TRAIN_LABELS)
    test = _rows(place, TEST_LABELS)
    parts = {"train": _part(place, TRAIN, train)}
    for split, usage in USAGES.items():
        rows = [row for row in test if row.get("Usage") == usage]
        if not rows:
            raise DataError(
                f"{place.path(TEST_LABELS)} has no rows of Usage {usage}: take it from "
                f"{TEST_LABELS_SOURCE}"
            )
        parts[split] = _part(place, TEST, rows)
    return Published(CLASSES, parts, notes=(NOTE,))


def _rows(place: DatasetFiles, name: str) -> list[dict[str, str]]:
    """Return the rows of a table of `image` and `level`."""
    path = place.path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    rows = list(csv.DictReader(io.StringIO(text), restval=""))
    for line, row in enumerate(rows, 2):
        level = row.get("level", "")
        if not row.get("image") or level not in tuple("01234"):
            raise DataError(
                f"{path}: line {line} has image {row.get('image')!r} and level {level!r}, wanted "
                "a name and 0 to 4"
            )
    return rows


def _part(place: DatasetFiles, archive: str, rows: Sequence[dict[str, str]]) -> Part:
    members, folder = place.members(archive), archive.removesuffix(".zip")
    names = [row["image"] for row in rows]
    images = members.select([f"{folder}/{name}.jpeg" for name in names])
    return Part(RetinaStore(images), [CLASSES[int(row["level"])] for row in rows], names)


class RetinaStore:
    """Photographs of the retina, prepared, as JPEGs of quality 72."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.names: Sequence[str] = store.names

    def read(self, number: int) -> Content:
        """Return the bytes of a prepared image."""
        content = self._store.read(number)
        assert isinstance(content, bytes)
        try:
            pixels = decode_image(content)
            if pixels.dtype != np.uint8:
                raise OSError(f"an image of {pixels.dtype}, not of eight bits")
            return encode_prepared(prepare_retina(pixels))
        except (UnreadableImageError, UnsupportedImageError, ValueError) as error:
            raise OSError(str(error)) from None

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        stamp = self._store.stamp(number)
        return stamp and f"{stamp}-btgraham-300"

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together."""
        return self._store.blocks()


def encode_prepared(pixels: np.ndarray) -> bytes:
    """Return a JPEG of the quality that VTAB's have, 72, with colours at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return file.getvalue()


RADIUS = 300
"""Pixels from the middle of the eye to its edge, once it is scaled."""
SIGMA = RADIUS / 30
MASK_RADIUS = int(RADIUS * 0.9)
GREY = 128
_SCALE_BITS = 11
"""Bits of OpenCV's integer weights for resizing."""
_BLUR_BITS = 8
"""Bits of its integer weights for blurring."""


def prepare_retina(image: np.ndarray) -> np.ndarray:
    """Prepare an image.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        uint8 (H', W', 3), at most 540 pixels a side.

    Raises:
        ValueError: the eye is so small that the scaled image would have too many pixels.
    """
    height, width = image.shape[:2]
    factor = RADIUS / eye_radius(image)
    if height * width * factor**2 > MAX_PIXELS:
        raise ValueError(
            f"an image of {height}x{width} pixels with an eye of only {2 * RADIUS / factor:.0f}"
        )
    scaled = scale_bilinear(image, factor)
    return crop_to_circle(subtract_local_average(scaled, sigma=SIGMA), MASK_RADIUS)


def eye_radius(image: np.ndarray) -> float:
    """Return half the number of pixels of the middle row brighter than a tenth of its average.

    Where that is less than a pixel, as in a few spoiled images, half of the height is taken.
    """
    row = image[image.shape[0] // 2].sum(axis=1, dtype=np.int64)
    radius = float((row > row.mean() / 10).sum() / 2)
    return radius if radius >= 1 else image.shape[0] / 2


def scale_bilinear(image: np.ndarray, factor: float) -> np.ndarray:
    """Resize by a factor, bilinearly between the two nearest pixels of each side: no antialiasing.

    Args:
        image: uint8 (H, W, C).
        factor: of height and width, which are rounded, halves to even.

    Returns:
        uint8 (H', W', C).
    """
    columns, column_weights = _neighbours(image.shape[1], factor)
    lines, line_weights = _neighbours(image.shape[0], factor)
    rows, line_of = np.unique(lines, return_inverse=True)
    used = image[rows].astype(np.int32)
    left, right = (used[:, columns[n]] * column_weights[n][None, :, None] for n in (0, 1))
    across = left + right >> 4
    above, below = (
        across[line_of.reshape(2, -1)[n]] * line_weights[n][:, None, None] >> 16 for n in (0, 1)
    )
    return (above + below + 2 >> 2).astype(np.uint8)


def _neighbours(size: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the two source pixels around each pixel of a resized side, and their weights.

    Args:
        size: of the side.
        factor: by which it is resized.

    Returns:
        (2, N) int64 and (2, N) int32, of which each pair sums to about 2 ** 11.
    """
    middles = np.arange(max(1, round(size * factor))) + 0.5
    positions = (middles * (1 / factor) - 0.5).astype(np.float32)
    before = np.floor(positions)
    shares = np.where((before < 0) | (before >= size - 1), np.float32(0), positions - before)
    weights = np.rint(np.stack([1 - shares, shares]) * np.float32(1 << _SCALE_BITS))
    pixels = np.stack([before, before + 1]).astype(np.int64).clip(0, size - 1)
    return pixels, weights.astype(np.int32)


def subtract_local_average(image: np.ndarray, *, sigma: float) -> np.ndarray:
    """Return 4 times the difference of an image and its blurred copy, around grey, as bytes.

    Args:
        image: uint8 (H, W, C).
        sigma: of the Gaussian, in pixels.
    """
    difference = image.astype(np.int32) - blur(image, sigma=sigma)
    return (4 * difference + GREY).clip(0, 255).astype(np.uint8)


def blur(image: np.ndarray, *, sigma: float) -> np.ndarray:
    """Blur by a Gaussian; edges are padded by reflection, without repeating the last pixel.

    Args:
        image: uint8 (H, W, C).
        sigma: in pixels.

    Returns:
        int32 (H, W, C).
    """
    kernel = gaussian_kernel(sigma)
    height, width, channels = image.shape
    # All sums stay below 2 ** 24: float32 is exact, and much faster than whole numbers.
    across = _blur_matrix(kernel, width) @ image.astype(np.float32)
    along = _blur_matrix(kernel, height) @ across.reshape(height, width * channels)
    return (along.astype(np.int32) + (1 << 2 * _BLUR_BITS - 1) >> 2 * _BLUR_BITS).reshape(
        image.shape
    )


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Return OpenCV's weights of a Gaussian for bytes: whole numbers, of sum 256.

    From the ends to the middle, each is rounded after adding what rounding the one before lost.

    Args:
        sigma: in pixels; weights reach 3 times as far.
    """
    size = round(sigma * 6 + 1) | 1
    offsets = np.arange(size) - size // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights *= (1 << _BLUR_BITS) / weights.sum()
    kernel = np.zeros(size, np.int64)
    lost = 0.0
    for index in range(size // 2):
        kernel[index] = kernel[-1 - index] = round(weights[index] + lost)
        lost += weights[index] - kernel[index]
    kernel[size // 2] = (1 << _BLUR_BITS) - kernel.sum()
    return kernel


def _blur_matrix(kernel: np.ndarray, size: int) -> np.ndarray:
    """Return the matrix (size, size) float32 that blurs a side of that many pixels."""
    reach = len(kernel) // 2
    sources = np.pad(np.arange(size), reach, mode="reflect" if size > 1 else "edge")
    matrix = np.zeros((size, size), np.float32)
    for row in range(size):
        np.add.at(matrix[row], sources[row : row + len(kernel)], kernel)
    return matrix


def crop_to_circle(image: np.ndarray, radius: int) -> np.ndarray:
    """Fill the outside of the central circle with grey, and crop to the circle's box.

    Args:
        image: uint8 (H, W, C).
        radius: of the circle, in pixels.
    """
    height, width = image.shape[:2]
    middle_y, middle_x = height // 2, width // 2
    half_widths = circle_half_widths(radius)
    rows = np.abs(np.arange(height) - middle_y)
    reach = np.where(rows <= radius, half_widths[np.minimum(rows, radius)], -1)
    inside = np.abs(np.arange(width) - middle_x) <= reach[:, None]
    masked = np.where(inside[..., None], image, np.uint8(GREY))
    return masked[
        max(middle_y - radius, 0) : middle_y + radius, max(middle_x - radius, 0) : middle_x + radius
    ]


def circle_half_widths(radius: int) -> np.ndarray:
    """Return how far OpenCV's filled circle reaches sideways, 0 to `radius` rows from its middle.

    By Bresenham's algorithm, which goes round an eighth of the circle in whole steps.
    """
    widths = np.zeros(radius + 1, np.int64)
    x, y, error, plus, minus = radius, 0, 0, 1, 2 * radius - 1
    while x >= y:
        widths[y], widths[x] = max(widths[y], x), max(widths[x], y)
        y += 1
        error += plus
        plus += 2
        if error > 0:
            error -= minus
            x -= 1
            minus -= 2
    return widths


TASKS = {
    "retinopathy": Task(
        group="specialized",
        read=read_retinopathy,
        files=FILES,
        num_classes=5,
        train=("train", 0, 100),
        validation=("validation", 0, 100),
        test=("test", 0, 100),
        num_test=42_670,
        tree=("diabetic_retinopathy",),
        dataset="retinopathy",
    ),
}
