"""Nearest neighbours of a model on a task."""

from dataclasses import dataclass
from typing import Any

from vitral.errors import RequestError
from vitral.evaluate.frozen import FrozenModel, FrozenTask
from vitral.evaluate.frozen_controls import (
    control_views,
    free_controls,
    model_view,
    shuffled_control,
)
from vitral.evaluate.frozen_parts import Parts, extract_parts
from vitral.evaluate.frozen_rows import FrozenResult, row_maker
from vitral.evaluate.neighbours import KS, TEMPERATURE, TEMPERATURES, K, choose_knn, knn
from vitral.evaluate.score import wilson_interval


@dataclass(frozen=True)
class Vote:
    """How neighbours vote."""

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
    """Let the nearest training images name each test image.

    The images are prepared as the model says.

    Args:
        frozen: the model.
        task: validation images take no part.
        vote: how; None: as DINO votes.
        choose: whether k and temperature are chosen instead, by leaving training images out.
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
    fixed = None if choose else vote or Vote()
    accuracy, used = _score(parts, task, fixed)
    labels = parts.test.labels
    compared: dict[str, float] = {}
    if controls:
        for name, view in control_views(frozen, preprocessing).items():
            compared[name], _ = _score(extract_parts(view, task), task, fixed)
        compared["shuffled_labels"], warning = shuffled_control(
            lambda generator: _score(parts.shuffled(generator), task, used)[0], labels
        )
        notes += [warning] if warning else []
    settings: dict[str, Any] = vars(used)
    if choose:
        settings = {"ks": KS, "temperatures": TEMPERATURES, "chosen_by": "leaving one out"}
    maker = row_maker(frozen, task, protocol="knn", preprocessing=preprocessing, settings=settings)
    row = maker.row(
        accuracy,
        settings={"chosen": vars(used)} if choose else {},
        num_examples=len(labels),
        seed=0,
        interval=wilson_interval(round(accuracy * len(labels)), len(labels)),
        interval_over="images",
        controls=compared | free_controls(task, labels),
    )
    skipped = task.num_damaged + len(parts.test.errors)
    return FrozenResult((row,), skipped, tuple(notes))


def _score(parts: Parts, task: FrozenTask, vote: Vote | None) -> tuple[float, Vote]:
    """Return the accuracy, and how neighbours voted: as told, or as chosen."""
    train, test, num_classes = parts.train, parts.test, len(task.classes)
    if vote is None:
        chosen = choose_knn(train.values, train.labels, num_classes=num_classes)
        vote = Vote(chosen.k, chosen.temperature)
    found = knn(
        train.values, train.labels, test.values, test.labels,
        num_classes=num_classes, k=vote.k, temperature=vote.temperature,
    )  # fmt: skip
    return found.accuracy, vote
