"""Linear probe of a model on a task."""

import numpy as np

from vitral.errors import DataError
from vitral.evaluate.frozen import FrozenModel, FrozenTask
from vitral.evaluate.frozen_controls import (
    View,
    control_views,
    free_controls,
    model_view,
    shuffled_control,
)
from vitral.evaluate.frozen_parts import Parts, extract_parts
from vitral.evaluate.frozen_rows import FrozenResult, row_maker
from vitral.evaluate.probe import L2_GRID, VALIDATION_SHARE, Probe, linear_probe
from vitral.evaluate.score import wilson_interval


def score_probe(frozen: FrozenModel, task: FrozenTask, *, controls: bool = True) -> FrozenResult:
    """Fit logistic regression to a task's training features, and score the test once.

    The images are prepared as the model says. Validation images choose l2, and join the fit then;
    without them a part of the training images does.

    Args:
        frozen: the model.
        task: opened with its validation images.
        controls: whether pixels, an untrained model and shuffled labels are scored too.

    Raises:
        DataError: a class has no training image.
    """
    check_every_class_trains(task)
    preprocessing, notes = frozen.changed(frozen.model.preprocessing)
    parts = extract_parts(model_view(frozen, preprocessing), task)
    found = fit(parts, task)
    compared: dict[str, float] = {}
    if controls:
        views = control_views(frozen, preprocessing)
        compared = {name: _accuracy(view, task) for name, view in views.items()}
        compared["shuffled_labels"], warning = shuffled_control(
            lambda generator: fit(parts.shuffled(generator), task, l2=found.l2).accuracy,
            parts.test.labels,
        )
        notes += [warning] if warning else []
    chosen_on = f"{VALIDATION_SHARE:.0%} of each class's training images"
    settings = {
        "l2_grid": L2_GRID,
        "l2_chosen_on": chosen_on if task.validation is None else "validation",
    }
    maker = row_maker(
        frozen, task, protocol="probe", preprocessing=preprocessing, settings=settings
    )
    labels = parts.test.labels
    row = maker.row(
        found.accuracy,
        settings={"chosen": {"l2": found.l2}},
        num_examples=len(labels),
        seed=0,
        interval=wilson_interval(int((found.predictions == labels).sum()), len(labels)),
        interval_over="images",
        controls=compared | free_controls(task, labels),
    )
    shares = found.probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = float(-np.log(np.maximum(shares, np.finfo(np.float32).tiny)).mean())
    skipped = task.num_damaged + len(parts.test.errors)
    return FrozenResult((row,), skipped, tuple(notes), loss)


def fit(parts: Parts, task: FrozenTask, *, l2: float | None = None) -> Probe:
    """Fit the probe; with an l2 nothing is chosen."""
    validation = parts.validation
    return linear_probe(
        parts.train.values,
        parts.train.labels,
        parts.test.values,
        parts.test.labels,
        num_classes=len(task.classes),
        validation=(validation.values, validation.labels) if validation else None,
        l2_grid=L2_GRID if l2 is None else (l2,),
    )


def _accuracy(view: View, task: FrozenTask) -> float:
    return fit(extract_parts(view, task), task).accuracy


def check_every_class_trains(task: FrozenTask) -> None:
    """Make sure that there is something to learn each class from.

    Raises:
        DataError: a class has no training image.
    """
    counts = np.bincount(task.train.labels, minlength=len(task.classes))
    absent = np.flatnonzero(counts == 0)
    if len(absent):
        more = f" (nor have {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise DataError(
            f"class {task.classes[absent[0]]!r} has no training image in {task.source}{more}: add "
            "one, take the class out, or use `vitral knn`, which needs none"
        )
