"""Linear probe and k-nearest neighbours of a model on a task."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vitral.errors import DataError, RequestError
from vitral.evaluate.frozen.controls import (
    SplitFeatures,
    View,
    control_views,
    extract_parts,
    free_controls,
    model_view,
    shuffled_control,
)
from vitral.evaluate.frozen.task import FrozenModel, FrozenResult, FrozenTask, row_maker
from vitral.evaluate.neighbours import KS, TEMPERATURE, TEMPERATURES, K, choose_knn, knn
from vitral.evaluate.probe import L2_GRID, VALIDATION_SHARE, Probe, linear_probe
from vitral.statistics import wilson_interval


def score_probe(frozen: FrozenModel, task: FrozenTask, *, controls: bool = True) -> FrozenResult:
    """Fit logistic regression to a task's training features, and score the test split once.

    The images are preprocessed with the model's preprocessing. l2 is chosen on the validation
    images, which are then included in the fit, or else on a part of the training images.

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
    probe = fit(parts, task)
    control_scores: dict[str, float] = {}
    if controls:
        views = control_views(frozen, preprocessing)
        control_scores = {name: _accuracy(view, task) for name, view in views.items()}
        control_scores["shuffled_labels"], warning = shuffled_control(
            lambda generator: fit(parts.shuffled(generator), task, l2=probe.l2).accuracy,
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
        probe.accuracy,
        settings={"chosen": {"l2": probe.l2}},
        num_examples=len(labels),
        seed=0,
        interval=wilson_interval(int((probe.predictions == labels).sum()), len(labels)),
        interval_over="images",
        controls=control_scores | free_controls(task, labels),
    )
    shares = probe.probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = float(-np.log(np.maximum(shares, np.finfo(np.float32).tiny)).mean())
    skipped = task.num_damaged + len(parts.test.errors)
    return FrozenResult((row,), skipped, tuple(notes), loss)


def fit(parts: SplitFeatures, task: FrozenTask, *, l2: float | None = None) -> Probe:
    """Fit the probe, with the given l2 or a chosen one."""
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
    """Check that each class has a training image.

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


@dataclass(frozen=True)
class Vote:
    """Settings of the vote of neighbours."""

    k: int = K
    temperature: float = TEMPERATURE


def score_knn(
    frozen: FrozenModel,
    task: FrozenTask,
    *,
    vote: Vote | None = None,
    choose: bool = False,
    controls: bool = True,
) -> FrozenResult:
    """Classify each test image by its nearest training images.

    The images are preprocessed with the model's preprocessing.

    Args:
        frozen: the model.
        task: validation images are not used.
        vote: its settings; None: those of DINO.
        choose: whether to choose k and temperature instead, by leaving one training image out.
        controls: whether pixels, an untrained model and shuffled labels are scored too.

    Raises:
        RequestError: both `vote` and `choose`, or k is out of range.
    """
    if choose and vote:
        raise RequestError(
            f"k={vote.k}, temperature={vote.temperature:g} and choose both say how neighbours "
            "vote: give one of them"
        )
    preprocessing, notes = frozen.changed(frozen.model.preprocessing)
    parts = extract_parts(model_view(frozen, preprocessing), task)
    given_vote = None if choose else vote or Vote()
    accuracy, used_vote = _score(parts, task, given_vote)
    labels = parts.test.labels
    control_scores: dict[str, float] = {}
    if controls:
        for name, view in control_views(frozen, preprocessing).items():
            control_scores[name], _ = _score(extract_parts(view, task), task, given_vote)
        control_scores["shuffled_labels"], warning = shuffled_control(
            lambda generator: _score(parts.shuffled(generator), task, used_vote)[0], labels
        )
        notes += [warning] if warning else []
    settings: dict[str, Any] = vars(used_vote)
    if choose:
        settings = {"ks": KS, "temperatures": TEMPERATURES, "chosen_by": "leaving one out"}
    maker = row_maker(frozen, task, protocol="knn", preprocessing=preprocessing, settings=settings)
    row = maker.row(
        accuracy,
        settings={"chosen": vars(used_vote)} if choose else {},
        num_examples=len(labels),
        seed=0,
        interval=wilson_interval(round(accuracy * len(labels)), len(labels)),
        interval_over="images",
        controls=control_scores | free_controls(task, labels),
    )
    skipped = task.num_damaged + len(parts.test.errors)
    return FrozenResult((row,), skipped, tuple(notes))


def _score(parts: SplitFeatures, task: FrozenTask, vote: Vote | None) -> tuple[float, Vote]:
    """Return the accuracy, and the vote settings: the given ones, or those chosen."""
    train, test, num_classes = parts.train, parts.test, len(task.classes)
    if vote is None:
        chosen = choose_knn(train.values, train.labels, num_classes=num_classes)
        vote = Vote(chosen.k, chosen.temperature)
    scored = knn(
        train.values, train.labels, test.values, test.labels,
        num_classes=num_classes, k=vote.k, temperature=vote.temperature,
    )  # fmt: skip
    return scored.accuracy, vote
