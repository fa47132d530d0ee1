"""The end of a run: the model folder and its parts, the summary and the report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vitral.data.images import ImageData
from vitral.data.loader import own_share
from vitral.data.order import steps_per_epoch
from vitral.evaluate.evaluator import Evaluator, Scored, plain_figures
from vitral.figures.report import write_report
from vitral.files import atomic
from vitral.models.weights.folder import write_model_files
from vitral.train.building import Run
from vitral.train.fewshot import FewshotScorer
from vitral.train.folder import RunFolder
from vitral.train.objectives.base import Objective
from vitral.train.state import TrainState


@dataclass(frozen=True)
class Result:
    """What a run gives."""

    model: nn.Module
    """With its final weights, in evaluation mode."""
    summary: dict[str, Any]
    """The final figures, as in `summary.json`."""
    path: Path
    """The run folder."""


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Return the summary of a finished run."""
    summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    return summary


def write_results(
    run: Run,
    state: TrainState,
    evaluator: Evaluator,
    *,
    split: str | None,
    data: ImageData,
    fewshot: FewshotScorer | None,
) -> dict[str, Any]:
    """Write the result of a run, on the main process; the run is done when all of it is there.

    Args:
        run: what is fixed of it.
        state: whose model has its final weights.
        evaluator: filled with what is scored; empty where nothing is.
        split: that was scored; None: there is none.
        data: of the run, as it is read.
        fewshot: where few-shot scores are asked for.

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
    batch_size = own_share(config.train.batch_size, objective.needs.sources)
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
    atomic.write_json(folder.path / "summary.json", summary)
    folder.write_status("done", step=state.step, steps=config.train.steps)
    write_report(folder.path)
    return summary


def _write_modules(run: Run, objective: Objective) -> None:
    """Write `model/`, and each part that is published beside it into a folder of `parts/`."""
    parts = {f"parts/{name}": module for name, module in objective.parts().items()}
    for name, module in {"model": objective.result(), **parts}.items():
        place = run.folder.path / name
        place.parent.mkdir(exist_ok=True)
        with atomic.new_folder(place) as aside:
            write_model_files(
                module,
                aside,
                preprocessing=run.resolved.config.preprocessing,
                classes=run.classes if name == "model" else None,
                provenance=dict(run.provenance),
            )
