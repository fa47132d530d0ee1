"""What a run writes and says of itself before its first step."""

from collections.abc import Callable, Mapping
from typing import Any

from vitral.data.images import ImageData
from vitral.data.report import data_report, describe_report
from vitral.files import atomic
from vitral.runtime.device import machine_facts
from vitral.train.checkpoint import SavedState
from vitral.train.folder import RunFolder
from vitral.train.loop import Machine
from vitral.train.resolve import ResolvedRun


def describe_run(
    folder: RunFolder,
    resolved: ResolvedRun,
    data: ImageData,
    machine: Machine,
    *,
    further: Mapping[str, ImageData],
    title: str,
    saved: SavedState | None,
    say: Callable[[str], None],
) -> None:
    """Write the data report, the splits and the environment, and say what this run is.

    Args:
        folder: of the run.
        resolved: its settings.
        data: opened.
        machine: where it happens.
        further: the objective's further sources, by name.
        title: a short name of the data.
        saved: where it goes on from; None: it begins.
        say: tells a person a line.
    """
    recipe, config = resolved.recipe, resolved.config
    report = data_report(data, name=title)
    atomic.write_json(folder.path / "data_report.json", report)
    folder.write_skipped(data, saved.progress["unreadable"] if saved else {}, further=further)
    folder.write_splits(data)
    facts = machine_facts(machine.device) | {
        "world_size": machine.ranks.world_size,
        "precision": str(machine.precision).removeprefix("torch."),
        "compile": str(machine.compile),
    }
    atomic.write_json(folder.path / "environment.json", facts)
    for line in (f"run:  {folder.path}", *describe_report(report)):
        say(line)
    for source, more in further.items():
        for line in describe_report(data_report(more, name=source)):
            say(line)
    name = config.model.name if config.model else "your own model"
    say(f"model: {name} at {config.preprocessing.size[0]} x {config.preprocessing.size[1]} pixels")
    if config.preprocessing.levels:
        black, white = config.preprocessing.levels
        say(f"       values of more than 8 bits: {black:g} is black, {white:g} white")
    if config.model and config.model.untiled_note():
        say(f"       {config.model.untiled_note()}")
    if config.evaluation.keep_best and "test" not in data.splits:
        say(
            "note: there are no test images: the score will be on the validation images that "
            "choose the model, and flatter"
        )
    say(f"recipe: {recipe.name}: {recipe.reason}")
    say(
        f"        {config.train.steps:,} steps of {config.train.batch_size} images, learning "
        "rate "
        f"{config.optimizer.learning_rate:g}, weight decay {config.optimizer.weight_decay:g}, "
        f"{facts['precision']} on {facts['device']}"
    )
    if saved:
        say(f"going on from {saved.path.name}")
        for change in _changed_facts(saved.progress, facts):
            say(f"warning: {change}: the result may differ in its last bits")


def _changed_facts(progress: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    before = {**progress["machine"], "world_size": progress["world_size"]}
    return [
        f"{name} was {before[name]}, now {facts[name]}"
        for name in before
        if name in facts and before[name] != facts[name]
    ]
