"""Images in memory, in arrays or in an object, and `.npz` files of them."""

import operator
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitral.data.decode import as_shown, to_channels
from vitral.data.levels import check_deep
from vitral.data.sources.listing import SPLIT_NAMES, Listing
from vitral.data.sources.store import Content, ObjectTargets, Store
from vitral.errors import DataError, RequestError


class ArrayStore:
    """Images in one array (N, H, W) or (N, H, W, C), of eight bits or more."""

    def __init__(self, images: np.ndarray, *, path: str) -> None:
        if images.ndim not in (3, 4):
            raise DataError(
                f"{path}: images of shape {images.shape}, wanted (N, H, W) or (N, H, W, C)"
            )
        try:
            images = check_deep(images)
        except DataError as error:
            raise DataError(f"{path}: images of {error}") from None
        if images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] > 4:
            raise DataError(
                f"{path}: images of shape {images.shape} look like (N, C, H, W), wanted "
                "(N, H, W, C): transpose them with images.transpose(0, 2, 3, 1)"
            )
        self._images = images[..., None] if images.ndim == 3 else images
        self.names: Sequence[str] = numbered_names(len(images))

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        pixels: np.ndarray = self._images[number]
        return pixels

    def stamp(self, number: int) -> str | None:
        """Arrays are not cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None


class TiledStore:
    """Grey images of another store as three equal channels, made when an image is read."""

    def __init__(self, store: Store) -> None:
        """Tile `store`, whose content is pixels (H, W, 1)."""
        self._store = store
        self.names = store.names

    def read(self, number: int) -> Content:
        """Return an image's pixels (H, W, 3)."""
        pixels = self._store.read(number)
        assert isinstance(pixels, np.ndarray)
        return np.repeat(pixels, 3, axis=2)

    def stamp(self, number: int) -> str | None:
        """Return what changes when the content does."""
        return self._store.stamp(number)

    def blocks(self) -> np.ndarray | None:
        """Return which files are read together; None: each by itself."""
        return self._store.blocks()


class ObjectStore:
    """Any sized object with [i] -> (image, label) or an image, such as a torch data set."""

    def __init__(self, examples: Any) -> None:
        self._examples = examples
        self.names: Sequence[str] = numbered_names(len(examples))

    def read(self, number: int) -> Content:
        """Return an image's pixels."""
        example = self._examples[number]
        return as_pixels(example[0] if isinstance(example, tuple | list) else example)

    def stamp(self, number: int) -> str | None:
        """Objects are not cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None


def as_pixels(image: Any, *, channels: int | None = None) -> np.ndarray:
    """Return any usual form of an image as pixels (H, W, C), uint8 or of more bits.

    Args:
        image: a PIL image; an array (H, W) or (H, W, C) of whole numbers; a tensor (C, H, W); of
            either also floats in 0..1.
        channels: of the model: a PIL image with transparency is put on white for 1 or 3.

    Raises:
        DataError: another type, or floats outside 0..1.
    """
    if hasattr(image, "permute"):  # a tensor; torch is not imported for arrays and files
        image = image.detach().cpu()
        array = image.permute(1, 2, 0).numpy() if image.ndim == 3 else image.numpy()
    elif isinstance(image, Image.Image):
        shown = as_shown(image)
        if channels in (1, 3) and shown.mode in ("LA", "RGBA"):
            return to_channels(shown, channels)
        array = np.asarray(shown)
    else:
        array = np.asarray(image)
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"an image of floats from {array.min():.3g} to {array.max():.3g}: give uint8, or "
                "floats in 0..1 before any normalisation"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.ndim not in (2, 3):
        raise DataError(f"an image of shape {array.shape}: give (H, W) or (H, W, C)")
    array = check_deep(array)
    return array[:, :, None] if array.ndim == 2 else array


def numbered_names(count: int) -> Sequence[str]:
    """Return the names `0`, `1`, ... of images that have none."""
    return _Numbered(count)


class _Numbered(Sequence[str]):
    """The names `0`, `1`, ... without a list of them."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [str(i) for i in range(*index.indices(self._length))]
        if not 0 <= index < self._length:
            raise IndexError(index)
        return str(index)


def list_npz(path: Path, *, label: bool = True) -> Listing:
    """List the images of an `.npz` of images, labels and optionally classes and split.

    Args:
        path: of the file.
        label: whether labels are required; if not, those that exist are not read.

    Raises:
        DataError: an array is missing, or of a type or shape that is not read.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path} can't be read as .npz: it holds one array, as .npy does")
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} can't be read as .npz: {error}") from None
    for key in ("images", "labels") if label else ("images",):
        if key not in arrays:
            raise DataError(f"{path} has no array {key!r}: it has {', '.join(arrays) or 'none'}")
    images = arrays["images"]
    store = ArrayStore(images, path=str(path))
    if not label:
        splits = _npz_splits(arrays.get("split"), count=len(images), path=path)
        return Listing(str(path.resolve()), store, [()] * len(images), splits)
    labels = arrays["labels"]
    is_table = labels.ndim == 2 and labels.dtype.kind in "iub" and labels.shape[1] > 1
    if is_table and len(labels) == len(images):
        return _list_multi_label(arrays, store, path=path)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU" or len(labels) != len(images):
        raise DataError(
            f"{path}: labels of type {labels.dtype} and shape {labels.shape}, wanted one whole "
            "number "
            f"or name for each of {len(images)} images"
        )
    classes = _npz_classes(arrays, path=path)
    if classes and labels.dtype.kind in "iu":
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(
                f"{path}: labels from {labels.min()} to {labels.max()} for {len(classes)} classes"
            )
        names = [classes[label] for label in labels]
    else:
        names = [str(label) for label in labels]
    splits = _npz_splits(arrays.get("split"), count=len(images), path=path)
    return Listing(str(path.resolve()), store, names, splits, classes=classes)


def _list_multi_label(
    arrays: Mapping[str, np.ndarray], store: ArrayStore, *, path: Path
) -> Listing:
    """List images with labels (N, K) of 0 and 1: each has any number of the K classes."""
    multi_hot = arrays["labels"]
    count = multi_hot.shape[1]
    classes = _npz_classes(arrays, path=path) or tuple(map(str, range(count)))
    if len(classes) != count or not np.isin(multi_hot, (0, 1)).all():
        raise DataError(
            f"{path}: labels of shape {multi_hot.shape} for {len(classes)} classes: give 0 or 1 "
            "for each image and class, or one whole number or name for each image"
        )
    labels = [tuple(classes[k] for k in np.flatnonzero(row).tolist()) for row in multi_hot]
    splits = _npz_splits(arrays.get("split"), count=len(multi_hot), path=path)
    return Listing(str(path.resolve()), store, labels, splits, classes=classes)


def _npz_classes(arrays: Mapping[str, np.ndarray], *, path: Path) -> tuple[str, ...] | None:
    if "classes" not in arrays:
        return None
    classes = tuple(map(str, np.atleast_1d(arrays["classes"])))
    if len(set(classes)) < max(2, len(classes)):
        raise DataError(f"{path}: `classes` must be different names, two or more, not {classes}")
    return classes


def _npz_splits(column: np.ndarray | None, *, count: int, path: Path) -> list[str | None]:
    if column is None:
        return [None] * count
    unknown = sorted({str(name) for name in column.flat} - set(SPLIT_NAMES))
    if column.shape != (count,) or unknown:
        raise DataError(
            f"{path}: `split` must name train, validation or test for each of {count} images"
            + (f", not {unknown[0]!r}" if unknown else "")
        )
    return [SPLIT_NAMES[str(name)] for name in column]


def list_object(data: Any, *, label: bool = True, targets: Sequence[str] = ()) -> Listing:
    """List a sized object with [i] -> (image, label).

    Args:
        data: the object.
        label: whether the second is a class; if not, it may be absent.
        targets: kinds of target that it is instead, one at most.

    Raises:
        RequestError: it is not one.
        DataError: a label is no class.
    """
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise RequestError(
            f"data of type {type(data).__name__}: give a path, or a sized object with [i]"
        )
    names = getattr(data, "classes", None)
    classes = tuple(str(name) for name in names) if names is not None else None
    if not label:
        found = {kind: ObjectTargets(data, kind) for kind in targets}
        store = ObjectStore(data)
        source = f"{type(data).__name__} of {len(data)}"
        return Listing(source, store, [()] * len(data), [None] * len(data), targets=found)
    labels = [_class_of(data[i][1], classes, index=i) for i in range(len(data))]
    source = f"{type(data).__name__} of {len(data)}"
    return Listing(source, ObjectStore(data), labels, [None] * len(data), classes=classes)


def _class_of(label: Any, classes: tuple[str, ...] | None, *, index: int) -> str:
    """Return the class that the label of example `index` stands for."""
    if isinstance(label, str):
        return label
    try:
        class_id = operator.index(label)
    except TypeError:
        class_id = None
    if class_id is None or (classes and not 0 <= class_id < len(classes)):
        below = f" from 0 to {len(classes) - 1}" if classes else ""
        raise DataError(
            f"label {label!r} of example {index}: give a whole number{below}, or a name"
        )
    return classes[class_id] if classes else str(class_id)
