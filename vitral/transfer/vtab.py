"""VTAB-1k: the same settings for 19 tasks of 1,000 training images each, and their means.

Source: arXiv 1910.04867; ViT paper, section 4.1, B.1.1 and Table 9.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.config.catalogue import fold
from vitral.config.paper_results import vtab_means
from vitral.config.run import LOCATION_SETTINGS
from vitral.config.settings import Settings, parse_settings, settings_digest
from vitral.data.datasets.names import VTAB_PREFIX, check_task
from vitral.data.datasets.table import TASKS
from vitral.errors import RequestError, nearest
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.files.results import ResultRow, results_path
from vitral.models.model import Model
from vitral.training.context import train_context
from vitral.transfer.pretrained import PretrainedModel, append_new, open_source
from vitral.transfer.protocols import DROPOUT, PAPER_SIZE, Candidate
from vitral.transfer.series import claim_folder
from vitral.transfer.vtab_tasks import TaskRuns, mean_rows

RATES, SCHEDULES = (0.01, 0.003), (2500, 500)
"""Candidates of a sweep. The paper compares two of each without naming them: the first of each are
its final choice, the others are the next ones of its Table 4."""
PROBE_SETTINGS = ("data.directory", "train.device", "train.precision")
"""The settings that affect a linear probe."""
FIXED_SETTINGS = (
    "data.source", "data.validation_share", "data.group_pattern", "data.folds", "data.fold",
    "evaluation.keep_best", "evaluation.best_by", "evaluation.best_within", "evaluation.patience",
)  # fmt: skip


@dataclass(frozen=True)
class VtabResult:
    """Scores of a model on the available tasks."""

    path: Path
    summary: dict[str, Any]
    """As in `summary.json`. `tasks`: accuracy by task; `means`: of the groups whose tasks are all
    available, and overall; `missing`: why a task is not available; `dev_accuracies`: a sweep's
    means on validation images, `chosen`: the best of them."""
    rows: list[ResultRow]
    """One per task, then the means."""


def vtab(
    model: str | Path | Model,
    *,
    directory: str | Path | None = None,
    tasks: Sequence[str] = (),
    sweep: bool = False,
    linear: bool = False,
    image_size: int | tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    format: str | None = None,
    output: str | Path | None = None,
    results: str | Path | None = None,
    command: str | None = None,
    quiet: bool = False,
) -> VtabResult:
    """Score a model on VTAB-1k, once on the test images of each task.

    Every task is trained on its 1,000 images with the same settings: SGD with learning rate 0.01,
    2,500 steps, batch size 512, 384 pixels, BiT's crops and flips except where they would change
    the class.

    Args:
        model: a run folder, a model folder or file, a name, or a loaded model.
        directory: where the tasks' files are; None: `$VITRAL_DATA_DIR`, else `data`.
        tasks: by name; empty: all that are available.
        sweep: compare two rates and two schedules on the tasks' 200 validation images, trained on
            the other 800, and use the best on average; what `settings` fixes is not compared.
        linear: logistic regression on frozen features instead, at the model's own size; l2 is
            chosen on the 200 validation images.
        image_size: instead of 384.
        settings: additional ones by path, for every run.
        format: format of the model's file, if it can't be detected from the content.
        output: the folder; None: a descriptive name below `runs`.
        results: the file that rows are appended to; None: `$VITRAL_RESULTS`, else
            `runs/results.jsonl`.
        command: the command line of this call, which is recorded.
        quiet: print nothing on standard error.

    Raises:
        RequestError: an unknown task, no task is available, a setting has no effect, or the folder
            has other contents.
        DataError: images of a task can't be used.
    """
    given = parse_settings(settings or {})
    if directory:
        given |= Settings.of({"data.directory": str(directory)}, "option")
    image_size = given.get("model.image_size", image_size)
    given = given.without("model.image_size")
    check_settings(given, sweep=sweep, linear=linear)
    dropout = given.get("model.dropout")
    given = given.without("model.dropout")
    candidates = () if linear else list_candidates(given, image_size=image_size, sweep=sweep)
    present, missing = find_tasks(tasks, given.get("data.directory"))
    source = open_source(model, format=format)
    if dropout is None:
        dropout = DROPOUT.get(source.model.config.name, 0.0)
    with train_context(given.get("train.device", "auto"), quiet=quiet) as context:
        for name, reason in missing.items():
            context.view.log(f"missing: {name}: {reason}")
        command = command or f"vitral.transfer.vtab.vtab({source.path!r})"
        run_settings = given | Settings.of({"data.validation_share": 0.0}, "option")
        runs = TaskRuns(source, context, run_settings, present, command, dropout)
        plan = _plan(runs, candidates, image_size=image_size, sweep=sweep)
        folder = Path(output or _default_folder(source, plan))
        context.ranks.run_on_main(lambda: claim_folder(folder, plan))
        scores = runs.compare(candidates, folder / "sweep") if sweep else {}
        if linear:
            rows = runs.probe(folder / "tasks", image_size=image_size)
        else:
            best = best_on_average(candidates, scores) if sweep else candidates[0]
            rows = runs.tune(best, folder / "tasks")
        summary = _summary(rows) | {
            "missing": missing,
            "dev_accuracies": {name: _mean(accuracies) for name, accuracies in scores.items()},
            "chosen": best.name if sweep else None,
        }
        rows += mean_rows(rows, folder)

        def write() -> None:
            atomic.write_json(folder / RunFile.SUMMARY, summary)
            append_new(Path(results or results_path()), rows)

        context.ranks.run_on_main(write)
    return VtabResult(folder, summary, rows)


def check_settings(settings: Mapping[str, Any], *, sweep: bool, linear: bool) -> None:
    """Check that all settings have an effect.

    Raises:
        RequestError: one has none.
    """
    if sweep and linear:
        raise RequestError(
            "--sweep has no effect with --linear, which trains nothing by steps: leave one out"
        )
    for path in settings:
        if linear and path not in PROBE_SETTINGS:
            raise RequestError(
                f"{path} has no effect with --linear, which trains nothing by steps: leave it out"
            )
        if path in FIXED_SETTINGS:
            raise RequestError(
                f"{path} has no effect on VTAB, whose splits are given and whose last runs train "
                "on the validation images too: leave it out"
            )


def list_candidates(
    settings: Mapping[str, Any], *, image_size: int | tuple[int, int] | None, sweep: bool
) -> tuple[Candidate, ...]:
    """Return the candidates to compare; without a sweep only the paper's settings.

    Args:
        settings: by path, for every run: a rate or a length among them is not compared.
        image_size: None: 384.
        sweep: whether to compare.

    Raises:
        RequestError: nothing is left to compare.
    """
    size = image_size or PAPER_SIZE
    if not sweep:
        return (Candidate("paper", "vtab", image_size=size),)
    rates = () if "optimizer.learning_rate" in settings else RATES
    lengths = () if {"train.steps", "train.epochs"} & set(settings) else SCHEDULES
    if not rates and not lengths:
        raise RequestError(
            "--sweep has nothing left to compare beside a learning rate and a number of steps: "
            "leave one of the three out"
        )
    compared = {"optimizer.learning_rate": rates, "train.steps": lengths}
    axes = [[(path, value) for value in values] for path, values in compared.items() if values]
    return tuple(
        Candidate(
            "-".join(f"{path.rpartition('.')[2]}-{value:g}" for path, value in combination),
            "vtab",
            dict(combination),
            size,
        )
        for combination in itertools.product(*axes)
    )


def find_tasks(
    tasks: Sequence[str], directory: str | Path | None
) -> tuple[list[str], dict[str, str]]:
    """Return the tasks whose files exist, in the table's order, and why others are missing.

    Args:
        tasks: by name, such as "dtd" or "vtab-dtd"; empty: all.
        directory: as for `vtab`.

    Raises:
        RequestError: an unknown task, or no task is available.
    """
    known = {fold(name): name for name in TASKS}
    named = {name: known.get(fold(name).removeprefix("vtab")) for name in tasks}
    for name, task in named.items():
        if task is None:
            raise RequestError(f"VTAB has no task {name!r}{nearest(name, TASKS)}")
    missing: dict[str, str] = {}
    wanted = [name for name in TASKS if not named or name in named.values()]
    for name in wanted:
        try:
            check_task(name, directory=directory)
        except RequestError as error:
            missing[name] = str(error)
    if len(missing) == len(wanted):
        name, reason = next(iter(missing.items()))
        raise RequestError(f"none of VTAB's tasks is there, so of {name}: {reason}")
    return [name for name in wanted if name not in missing], missing


def best_on_average(
    candidates: Sequence[Candidate], scores: Mapping[str, Mapping[str, float]]
) -> Candidate:
    """Return the candidate with the best mean over tasks; ties go to the first.

    Args:
        candidates: the paper's own first.
        scores: accuracy by candidate and task.
    """
    return max(candidates, key=lambda candidate: _mean(scores[candidate.name]))


def _summary(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Return a summary of the rows of tasks."""
    return {
        "model": rows[0].model,
        "protocol": rows[0].protocol,
        "tasks": {row.data.removeprefix(VTAB_PREFIX): row.value for row in rows},
        "means": vtab_means({row.data: row.value for row in rows}),
    }


def _plan(
    runs: TaskRuns,
    candidates: Sequence[Candidate],
    *,
    image_size: int | tuple[int, int] | None,
    sweep: bool,
) -> dict[str, Any]:
    """Return everything that identifies the command, as plain data.

    Tasks may be added later, except with a sweep, whose choice depends on them.
    """
    excluded = (*LOCATION_SETTINGS, "data.directory")
    plan = {
        "weights": runs.source.weights,
        "settings": {path: value for path, value in runs.settings.items() if path not in excluded},
        "candidates": [dataclasses.asdict(candidate) for candidate in candidates],
        "dropout": runs.dropout,
        "image_size": image_size,
        "tasks": runs.names if sweep else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(plan))
    return plain


def _default_folder(source: PretrainedModel, plan: Mapping[str, Any]) -> Path:
    plain = source.model.config.name.lower().replace("/", "")
    return Path("runs") / f"vtab-{plain}-{settings_digest(plan, given=source.weights)}"


def _mean(scores: Mapping[str, float]) -> float:
    return math.fsum(scores.values()) / len(scores)
