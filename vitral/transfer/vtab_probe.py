"""Logistic regression on frozen features where not every class has a training image."""

import numpy as np

from vitral.evaluate.probe import linear_probe

Rows = tuple[np.ndarray, np.ndarray]
"""Features (N, D) and labels (N,)."""


def probe_seen_classes(train: Rows, validation: Rows, test: Rows) -> tuple[int, float]:
    """Fit a probe to the training and validation rows, and score the test rows once.

    A few hundred images leave classes out: of the 800 of Sun397, which has 397 classes, as of
    others. Classes without a row are never the answer; test rows of them count as wrong.

    Args:
        train: to choose the strength by, together with
        validation: which is fitted too in the end.
        test: scored.

    Returns:
        How many test rows are right, and the chosen l2.
    """
    first = np.unique(train[1])
    held = _among(validation, first)
    few = _among(train, first)
    choice = linear_probe(*few, *held, num_classes=len(first), validation=held, join=False)
    everything = tuple(np.concatenate(parts) for parts in zip(train, validation, strict=True))
    classes = np.unique(everything[1])
    fitted, scored = _among((everything[0], everything[1]), classes), _among(test, classes)
    probe = linear_probe(*fitted, *scored, num_classes=len(classes), l2_grid=(choice.l2,))
    return int((probe.predictions == scored[1]).sum()), choice.l2


def _among(rows: Rows, classes: np.ndarray) -> Rows:
    """Return the rows of some classes, these numbered anew from 0."""
    features, labels = rows
    known = np.isin(labels, classes)
    return features[known], np.searchsorted(classes, labels[known])
