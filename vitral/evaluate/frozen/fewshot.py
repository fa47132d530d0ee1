"""Few-shot accuracy of a model on a task: the paper's quick evaluation of a representation.

Source: ViT paper (arXiv 2010.11929v2) section 4.1; big_vision, evaluators/fewshot_lsr.py and
configs/common_fewshot.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitral.config.checks import check_not_negative, check_positive
from vitral.config.preprocessing import Preprocessing
from vitral.data.order import tfds_order
from vitral.errors import DataError, RequestError
from vitral.evaluate.arrays import Features
from vitral.evaluate.frozen.controls import View, control_views, free_controls, model_view
from vitral.evaluate.frozen.task import FrozenModel, FrozenResult, FrozenTask, RowMaker, row_maker
from vitral.evaluate.ridge import L2, draw_support, fewshot, fewshot_sweep
from vitral.files.results import ResultRow
from vitral.statistics import mean_interval, wilson_interval

SHOTS, NUM_SEEDS = (1, 5, 10, 25), 3
SWEEP = "sweep"
L2_GRID = tuple(2.0**power for power in range(-10, 21, 2))
MAX_HELD_OUT = 10
"""Training images per class outside of the support that choose l2 if there is no validation."""
IMAGENET_POOL = 65_000
"""Training images that ImageNet's supports are drawn from."""


def fewshot_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """Return big_vision's preprocessing for few-shot scores: squash to 256, crop the central 224.

    Sizes are those of the model, in that proportion. Images of more than eight bits, which
    big_vision does not support, are not rounded.
    """
    return replace(
        preprocessing,
        resize="squash",
        crop_share=224 / 256,
        geometry="tensorflow",
        interpolation="bilinear",
        antialias=False,
        rounding="none" if preprocessing.levels else "truncate",
    )


@dataclass(frozen=True)
class Draw:
    """The examples that one score is learnt from."""

    shots: int
    seed: int
    support: np.ndarray
    """Indices into the task's training split, class by class."""
    held: np.ndarray
    """Indices outside of every support of the seed, which choose l2; empty: none."""


@dataclass(frozen=True)
class Scored:
    """The score of one draw."""

    shots: int
    seed: int
    accuracy: float
    l2: float


def score_fewshot(
    frozen: FrozenModel,
    task: FrozenTask,
    *,
    shots: Sequence[int] | None = None,
    num_seeds: int = NUM_SEEDS,
    l2: float | str = L2,
    controls: bool = True,
) -> FrozenResult:
    """Score a model on a task from few examples of each class.

    Args:
        frozen: the model.
        task: opened with its validation images if l2 is swept.
        shots: examples per class; None: those of `SHOTS` that every class has.
        num_seeds: number of draws of the support, with the seeds 0, 1, ...
        l2: strength of the penalty; "sweep": chosen on the validation images, else on training
            images outside of the supports.
        controls: whether pixels and an untrained model are scored too.

    Returns:
        A row for each draw, with the interval over test images. For several seeds, these are
        followed by a row of the mean for each number of shots, with the interval over seeds.

    Raises:
        RequestError: a class has too few images, or a bad value.
        DataError: a class has no training image, or one of the support can't be read.
    """
    draws = draw_all(task, shots=shots, num_seeds=num_seeds, sweep=l2 == SWEEP)
    preprocessing, notes = frozen.changed(fewshot_preprocessing(frozen.model.preprocessing))
    test_view = model_view(frozen, preprocessing)
    scores, test = score_draws(test_view, task, draws, l2=l2)
    others = {
        name: score_draws(view, task, draws, l2=l2)[0]
        for name, view in (control_views(frozen, preprocessing) if controls else {}).items()
    }
    settings: dict[str, Any] = {"l2": l2 if l2 == SWEEP else float(l2)}
    if l2 == SWEEP:
        settings |= {"l2_grid": L2_GRID, "l2_chosen_on": _chosen_on(task)}
    if task.published == "imagenet":
        settings["support_pool"] = IMAGENET_POOL
    maker = row_maker(
        frozen, task, protocol="fewshot", preprocessing=preprocessing, settings=settings
    )
    free = free_controls(task, test.labels)
    rows = [
        _row(maker, score, {n: o[index].accuracy for n, o in others.items()} | free, test, l2)
        for index, score in enumerate(scores)
    ]
    means = _mean_rows(maker, rows) if num_seeds > 1 else []
    skipped = task.num_damaged + len(test.errors)
    return FrozenResult((*rows, *means), skipped, tuple(notes))


def draw_all(
    task: FrozenTask, *, shots: Sequence[int] | None, num_seeds: int, sweep: bool
) -> list[Draw]:
    """Draw the support for every number of shots and seed."""
    check_positive(num_seeds=num_seeds)
    pool = support_pool(task)
    labels = task.train.labels[pool]
    chosen = choose_shots(labels, task.classes, shots=shots)
    draws = []
    for seed in range(num_seeds):
        held_out = np.zeros(0, np.int64)
        if sweep and task.validation is None:
            held_out = pool[_held_out(labels, task.classes, seed=seed, shots=max(chosen))]
        for count in chosen:
            support = draw_support(labels, shots=count, seed=seed, num_classes=len(task.classes))
            draws.append(Draw(count, seed, pool[support], held_out))
    return sorted(draws, key=lambda draw: (draw.shots, draw.seed))


def support_pool(task: FrozenTask) -> np.ndarray:
    """Return the indices of the training examples that supports are drawn from.

    These are all, except for ImageNet: there the first in the order of TensorFlow Datasets, whose
    `train[:65000]` big_vision uses.
    """
    count = len(task.train)
    if task.published != "imagenet":
        return np.arange(count)
    keys = [task.train.name(index).rpartition("/")[2] for index in range(count)]
    return tfds_order("train", keys)[:IMAGENET_POOL]


def choose_shots(
    labels: np.ndarray, classes: Sequence[str], *, shots: Sequence[int] | None
) -> list[int]:
    """Return the numbers of shots, ascending.

    Args:
        labels: of the examples that supports are drawn from.
        classes: names.
        shots: requested numbers; None: those of `SHOTS` that there are images for.

    Raises:
        RequestError: a class has fewer images than requested.
        DataError: a class has none.
    """
    counts = np.bincount(labels, minlength=len(classes))
    fewest, name = int(counts.min()), classes[int(counts.argmin())]
    if not fewest:
        raise DataError(
            f"class {name!r} has no training image, so a support would lack it: add one, or take "
            "the class out"
        )
    if shots is None:
        return [count for count in SHOTS if count <= fewest]
    if not len(shots):
        raise RequestError("shots is empty: give numbers of images a class, such as 1,5,10,25")
    for count in shots:
        if count < 1:
            raise RequestError(f"shots={count} must be 1 or more")
        if count > fewest:
            raise RequestError(
                f"shots={count}: class {name!r} has {fewest} training images: use {fewest} at most"
            )
    return sorted(set(shots))


def _held_out(labels: np.ndarray, classes: Sequence[str], *, seed: int, shots: int) -> np.ndarray:
    """Return up to MAX_HELD_OUT training examples per class that are in no support of the seed."""
    drawn = draw_support(labels, shots=shots, seed=seed, num_classes=len(classes))
    rest = np.setdiff1d(np.arange(len(labels)), drawn)
    order = np.random.default_rng(seed).permutation(rest)
    by_class = [order[labels[order] == number][:MAX_HELD_OUT] for number in range(len(classes))]
    found: np.ndarray = np.concatenate(by_class)
    if not len(found):
        raise RequestError(
            f"shots={shots} takes every training image, so none is left to choose l2 on: use "
            "fewer shots, a fixed l2, or data with validation images"
        )
    return found


def score_draws(
    view: View, task: FrozenTask, draws: Sequence[Draw], *, l2: float | str
) -> tuple[list[Scored], Features]:
    """Score every draw with the features of a view; only needed images are computed.

    Raises:
        DataError: an image to learn from can't be read.
    """
    if not isinstance(l2, str):
        check_not_negative(l2=l2)
    wanted = np.unique(
        np.concatenate([part for draw in draws for part in (draw.support, draw.held)])
    )
    known = view(task.train.select(wanted))
    for index, reason in known.errors.items():
        raise DataError(
            f"{task.train.name(int(wanted[index]))} can't be read, which is to be learnt from: "
            f"{reason}: see `vitral data check`"
        )
    test = view(task.test)
    validation = view(task.validation) if l2 == SWEEP and task.validation is not None else None

    def rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positions = np.searchsorted(wanted, numbers)
        return known.values[positions], known.labels[positions]

    scores = []
    for draw in draws:
        support, draw_l2 = rows(draw.support), l2
        if isinstance(draw_l2, str):
            chosen_on = (validation.values, validation.labels) if validation else rows(draw.held)
            draw_l2 = _best_l2(support, chosen_on, num_classes=len(task.classes))
        found = fewshot(
            *support, test.values, test.labels, l2=draw_l2, num_classes=len(task.classes)
        )
        scores.append(Scored(draw.shots, draw.seed, found.accuracy, draw_l2))
    return scores, test


def _best_l2(
    support: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    *,
    num_classes: int,
) -> float:
    """Return the l2 of highest accuracy on held-out images; ties go to the strongest."""
    swept = fewshot_sweep(*support, *held_out, l2s=L2_GRID, num_classes=num_classes)
    return max(swept, key=lambda l2: (swept[l2].accuracy, l2))


def _chosen_on(task: FrozenTask) -> str:
    if task.validation is not None:
        return "validation"
    return f"{MAX_HELD_OUT} training images a class outside of the supports"


def _row(
    maker: RowMaker, scored: Scored, controls: dict[str, float], test: Features, l2: float | str
) -> ResultRow:
    count = len(test.labels)
    return maker.row(
        scored.accuracy,
        settings={"shots": scored.shots} | ({"chosen": {"l2": scored.l2}} if l2 == SWEEP else {}),
        num_examples=count,
        seed=scored.seed,
        interval=wilson_interval(round(scored.accuracy * count), count),
        interval_over="images",
        controls=controls,
    )


def _mean_rows(maker: RowMaker, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return a row with the mean over seeds for each number of shots."""
    means = []
    for shots in dict.fromkeys(row.settings["shots"] for row in rows):
        of_shots = [row for row in rows if row.settings["shots"] == shots]
        mean, low, high = mean_interval([row.value for row in of_shots])
        assert low is not None
        assert high is not None
        controls = {
            name: float(np.mean([row.controls[name] for row in of_shots]))
            for name in of_shots[0].controls
        }
        means.append(
            maker.row(
                mean,
                settings={"shots": shots},
                num_examples=of_shots[0].num_examples,
                seed=tuple(row.seed for row in of_shots),
                interval=(max(0.0, low), min(1.0, high)),
                interval_over="seeds",
                controls=controls,
            )
        )
    return means
