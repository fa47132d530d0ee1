"""Diabetic retinopathy, photographs of the retina, prepared when read as VTAB's `btgraham-300`.

Source: https://www.kaggle.com/c/diabetic-retinopathy-detection/data; TensorFlow Datasets 4.4.0,
`image_classification/diabetic_retinopathy_detection.py`.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vitral.data.datasets.published import Part, Place, Published
from vitral.data.datasets.publishers.btgraham import prepare_retina
from vitral.data.decode import UnreadableImageError, UnsupportedImageError, decode_image
from vitral.data.stores.store import Content, Store
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
"""The images of Kaggle's test on which it ranked while the contest ran, and at its end."""
QUALITY = 72
NOTE = (
    "images are prepared when read, nearly as TensorFlow Datasets does with OpenCV: `vitral data "
    "pack` keeps them prepared"
)


def read_retinopathy(place: Place) -> Published:
    """Read `train.zip` and `test.zip`, or their folders, by the tables of levels.

    Raises:
        DataError: a table can't be read, or states a level that is none.
    """
    train = _rows(place, TRAIN_LABELS)
    test = _rows(place, TEST_LABELS)
    parts = {"train": _part(place, TRAIN, train)}
    for split, usage in USAGES.items():
        own = [row for row in test if row.get("Usage") == usage]
        if not own:
            raise DataError(
                f"{place.path(TEST_LABELS)} has no rows of Usage {usage}: take it from "
                f"{TEST_LABELS_SOURCE}"
            )
        parts[split] = _part(place, TEST, own)
    return Published(CLASSES, parts, notes=(NOTE,))


def _rows(place: Place, name: str) -> list[dict[str, str]]:
    """Return the rows of a table of `image` and `level`."""
    path = place.path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    rows = list(csv.DictReader(io.StringIO(text), restval=""))
    for number, row in enumerate(rows, 2):
        level = row.get("level", "")
        if not row.get("image") or level not in tuple("01234"):
            raise DataError(
                f"{path}: line {number} has image {row.get('image')!r} and level {level!r}, wanted "
                "a name and 0 to 4"
            )
    return rows


def _part(place: Place, archive: str, rows: Sequence[dict[str, str]]) -> Part:
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
