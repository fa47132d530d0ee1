"""Class names as numbers: one for each image, or 0 and 1 for each image and class."""

from collections.abc import Iterable, Sequence

import numpy as np

from vitral.data.sources.listing import Label


def names_in(labels: Iterable[Label]) -> set[str]:
    """Return all class names that labels have."""
    return {name for own in labels for name in ((own,) if isinstance(own, str) else own)}


def number_labels(labels: Sequence[Label], classes: Sequence[str]) -> np.ndarray:
    """Return labels as numbers.

    Args:
        labels: of N images: a class name each, or a tuple of them each.
        classes: K names, in order.

    Returns:
        (N,) int64, -1 for a name that is not among the classes; for tuples (N, K) uint8 of 0 and 1.
    """
    number_of = {name: number for number, name in enumerate(classes)}
    if not labels or isinstance(labels[0], str):
        return np.array([number_of.get(str(name), -1) for name in labels], np.int64)
    marks = np.zeros((len(labels), len(classes)), np.uint8)
    for row, label in enumerate(labels):
        marks[row, [number_of[name] for name in label if name in number_of]] = 1
    return marks


def is_multi_label(labels: np.ndarray) -> bool:
    """Say whether labels from `number_labels` are of images with any number of classes."""
    return labels.ndim == 2


def class_counts(labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Return the number of images (K,) int64 of each class."""
    if is_multi_label(labels):
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def members_by_class(labels: np.ndarray) -> Iterable[np.ndarray]:
    """Give for each class that has images which ones they are, (N,) bool."""
    if is_multi_label(labels):
        return (column.astype(bool) for column in labels.T if column.any())
    return (labels == number for number in np.unique(labels))


def rarest_class(marks: np.ndarray) -> np.ndarray:
    """Return of each image (N,) int64 the class that fewest images have; K where it has none."""
    counts = marks.sum(axis=0, dtype=np.int64)
    ranks = np.where(marks.astype(bool), counts, np.iinfo(np.int64).max)
    none = ~marks.any(axis=1)
    return np.where(none, marks.shape[1], ranks.argmin(axis=1))


def label_text(label: np.ndarray | int, classes: Sequence[str]) -> str:
    """Return the class name of one image's label, or its class names joined by |; none: empty."""
    if np.ndim(label) == 0:
        return classes[int(label)] if label >= 0 else ""
    return "|".join(classes[number] for number in np.flatnonzero(label).tolist())
