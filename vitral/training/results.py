"""Files that a run writes at its start and end: facts, model, summary, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from vitral.data.loader import main_share
from vitral.data.order import steps_per_epoch
from vitral.data.report import data_report, describe_report
from vitral.evaluate.evaluator import Evaluator, Scored, plain_figures
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.models.weights.folder import write_model_files
from vitral.runtime.device import machine_facts

if TYPE_CHECKING:
    from vitral.data.dataset import ImageDataset
    from vitral.runtime.distributed import Machine
    from vitral.training.building import Run
    from vitral.training.checkpoint import SavedState
    from vitral.training.fewshot import FewshotScorer
    from vitral.training.objectives.base import Objective
    from vitral.training.resolve import ResolvedRun
    from vitral.training.run_folder import RunFolder
    from vitral.training.state import TrainState


@dataclass(frozen=True)
class Result:
    """The result of a run."""

    model: nn.Module
    """With its final weights, in evaluation mode."""
    summary: dict[str, Any]
    """The final metrics, as in `summary.json`."""
    path: Path
    """The run folder."""


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Return the summary of a finished run."""
    summary: dict[str, Any] = json.loads(
        (folder.path / RunFile.SUMMARY).read_text(encoding="utf-8")
    )
    return summary


def write_results(
    run: Run,
    state: TrainState,
    evaluator: Evaluator,
    *,
    split: str | None,
    data: ImageDataset,
    fewshot: FewshotScorer | None,
) -> dict[str, Any]:
    """Write the result of a run, on the main process; the run is done once all is written.

    Args:
        run: its fixed part.
        state: its model has the final weights.
        evaluator: holds the scores; empty if there are none.
        split: that was scored; None: there is none.
        data: of the run, perhaps decoded in memory.
        fewshot: if few-shot scores are requested.

    Returns:
        The summary.
    """
    folder, config, recipe = run.folder, run.resolved.config, run.resolved.recipe
    objective, model = state.objective, state.objective.result()
    _write_modules(run, objective)
    figures = plain_figures(evaluator.compute())
    if split:
        scored = Scored(model, data, split, config.preprocessing, run.machine.device)
        figures |= evaluator.finish(folder.path, scored)
    batch_size = main_share(config.train.batch_size, objective.needs.sources)
    per_epoch = steps_per_epoch(len(data.splits["train"]), batch_size)
    summary = {
        **figures,
        "metric": evaluator.primary.name,
        "larger_is_better": evaluator.primary.larger_is_better,
        "split": split,
        "num_skipped": len(evaluator.errors) + (len(data.problems(split)) if split else 0),
        "model": config.model.name if config.model else type(model).__name__,
        "data": run.title,
        "precision": "float32",
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": recipe.name,
        "recipe_reason": recipe.reason,
        "steps": state.step,
        "epochs": state.step / per_epoch,
        **({"best_step": state.best.step} if state.best else {}),
        **({"fewshot": fewshot.scores(model)} if fewshot else {}),
    }
    atomic.write_json(folder.path / RunFile.SUMMARY, summary)
    folder.write_status("done", step=state.step, steps=config.train.steps)
    return summary


def _write_modules(run: Run, objective: Objective) -> None:
    """Write `model/`, and each additional published part into a folder of `parts/`."""
    parts = {f"{RunFile.PARTS}/{name}": module for name, module in objective.parts().items()}
    for name, module in {RunFile.MODEL: objective.result(), **parts}.items():
        path = run.folder.path / name
        path.parent.mkdir(exist_ok=True)
        with atomic.new_folder(path) as aside:
            write_model_files(
                module,
                aside,
                preprocessing=run.resolved.config.preprocessing,
                classes=run.classes if name == RunFile.MODEL else None,
                provenance=dict(run.provenance),
            )


def describe_run(
    folder: RunFolder,
    resolved: ResolvedRun,
    data: ImageDataset,
    machine: Machine,
    *,
    extra: Mapping[str, ImageDataset],
    title: str,
    saved: SavedState | None,
    log: Callable[[str], None],
) -> None:
    """Write the data report, the splits and the environment, and log a description of the run.

    Args:
        folder: of the run.
        resolved: its settings.
        data: of the run.
        machine: device, precision and processes.
        extra: the objective's additional data sources, by name.
        title: a short name of the data.
        saved: the checkpoint to resume from; None: a new run.
        log: shows a line.
    """
    recipe, config = resolved.recipe, resolved.config
    report = data_report(data, name=title)
    atomic.write_json(folder.path / RunFile.DATA_REPORT, report)
    folder.write_skipped(data, saved.progress["unreadable"] if saved else {}, extra=extra)
    folder.write_splits(data)
    facts = machine_facts(machine.device) | {
        "world_size": machine.ranks.world_size,
        "precision": str(machine.precision).removeprefix("torch."),
        "compile": str(machine.compile),
    }
    atomic.write_json(folder.path / RunFile.ENVIRONMENT, facts)
    for line in (f"run:  {folder.path}", *describe_report(report)):
        log(line)
    for source, dataset in extra.items():
        for line in describe_report(data_report(dataset, name=source)):
            log(line)
    name = config.model.name if config.model else "your own model"
    log(f"model: {name} at {config.preprocessing.size[0]} x {config.preprocessing.size[1]} pixels")
    if config.preprocessing.levels:
        black, white = config.preprocessing.levels
        log(f"       values of more than 8 bits: {black:g} is black, {white:g} white")
    if config.model and config.model.uncovered_pixels_note():
        log(f"       {config.model.uncovered_pixels_note()}")
    if config.evaluation.keep_best and "test" not in data.splits:
        log(
            "note: there are no test images: the score will be on the validation images that "
            "choose the model, and flatter"
        )
    log(f"recipe: {recipe.name}: {recipe.reason}")
    log(
        f"        {config.train.steps:,} steps of {config.train.batch_size} images, learning "
        "rate "
        f"{config.optimizer.learning_rate:g}, weight decay {config.optimizer.weight_decay:g}, "
        f"{facts['precision']} on {facts['device']}"
    )
    if saved:
        log(f"going on from {saved.path.name}")
        for change in _changed_facts(saved.progress, facts):
            log(f"warning: {change}: the result may differ in its last bits")


def _changed_facts(progress: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    before = {**progress["machine"], "world_size": progress["world_size"]}
    return [
        f"{name} was {before[name]}, now {facts[name]}"
        for name in before
        if name in facts and before[name] != facts[name]
    ]
