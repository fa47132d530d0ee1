"""`vitral train`, and the options that are common to all verbs that train."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options
from vitral.files.layout import RunFile

if TYPE_CHECKING:
    from vitral.config.settings import Settings
    from vitral.training.results import Result


LENGTH_OPTIONS = (
    Option("--epochs", "length of a run", metavar="N", type=float),
    Option("--steps", "length of a run, in optimizer steps", metavar="N", type=int),
)
BATCH_SIZE_OPTION = Option(
    "--batch-size", "images a step, over all processes", metavar="N", type=int
)
SEED_OPTION = Option("--seed", "all random numbers follow from it", metavar="N", type=int)
MACHINE_OPTIONS = (
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME"),
    Option("--precision", "auto, float32 or bfloat16", metavar="NAME"),
)
COMPILE_OPTION = Option("--compile", "auto, on or off", metavar="WHEN")
RESUME_OPTION = Option(
    "--resume", "auto, never, or the path of a run to go on with", metavar="HOW", default="auto"
)
SET_OPTION = Option(
    "--set",
    "any setting, as in augment.mixup=0.2; may be repeated",
    metavar="PATH=VALUE",
    repeat=True,
)
JSON_OPTION = Option("--json", "print the summary as one JSON object")
_SETTINGS = {
    "image_size": "model.image_size",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "batch_size": "train.batch_size",
    "learning_rate": "optimizer.learning_rate",
    "seed": "train.seed",
    "device": "train.device",
    "precision": "train.precision",
    "compile": "train.compile",
    "data_dir": "data.directory",
}
"""The setting of each option."""
DESCRIPTION = (
    "Train a Vision Transformer on images and write a run folder with model, score and report."
)
OPTIONS = (
    Option(
        "data",
        "folder of class folders (with or without train/, val/, test/), .csv, .npz; "
        "left out: the built-in images",
        metavar="DATA",
    ),
    DATA_DIR_OPTION,
    Option("--model", "such as ViT-S/16; left out: one that fits the images", metavar="NAME"),
    Option("--image-size", "pixels of the model's input, N or HxW", metavar="N"),
    Option("--recipe", "left out: one that fits the task, said with its reason", metavar="NAME"),
    *LENGTH_OPTIONS,
    BATCH_SIZE_OPTION,
    Option("--learning-rate", "the peak", metavar="X", type=float),
    SEED_OPTION,
    *MACHINE_OPTIONS,
    COMPILE_OPTION,
    Option("--output", "the run folder; left out: runs/DATA-MODEL-xxxxxx", metavar="DIR"),
    RESUME_OPTION,
    Option(
        "--config", "a YAML file of settings, such as another run's config.yaml", metavar="FILE"
    ),
    SET_OPTION,
    JSON_OPTION,
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    args = parse_options("train", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.training.train import train

    result = train(
        args.model,
        args.data,
        recipe=args.recipe,
        output=args.output,
        resume=args.resume,
        config=args.config,
        settings=given_settings(args),
        command=shlex.join(["vitral", "train", *tokens]),
    )
    print_summary(args, result.summary, result.path, lambda: _lines(result))
    return 0


def _lines(result: "Result") -> list[str]:
    return [*summary_lines(result.summary), *place_lines(result.path)]


def place_lines(folder: Path) -> list[str]:
    """Say where the model and the report of a finished folder are."""
    paths = {"model": folder / RunFile.MODEL, "report": folder / RunFile.REPORT}
    return [f"{name:<8}  {path}" for name, path in paths.items() if path.exists()]


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Format a summary as lines."""
    metric = summary.get("metric", "accuracy")
    if summary.get(metric) is None:
        unknown = f"{metric:<8}  not known: the data has no test and no validation images"
        return [unknown, *_fewshot_lines(summary)]
    if metric != "accuracy" or summary.get("accuracy_interval") is None:
        return [_headline(summary, metric), *_fewshot_lines(summary)]
    low, high = summary["accuracy_interval"]
    majority = f"always {summary['majority_class'] or 'no class'!r}"
    controls = [f"{majority} {_percent(summary['majority_accuracy'])}"]
    if summary.get("pixel_accuracy") is not None:
        controls.append(f"logistic regression on the pixels {_percent(summary['pixel_accuracy'])}")
    skipped = f", {summary['num_skipped']:,} could not be read" if summary["num_skipped"] else ""
    several = []
    if "f1_micro" in summary:
        names = ("mean_average_precision", "f1_micro", "f1_macro")
        precision, micro, macro = (_percent(summary[name] or 0.0) for name in names)
        several = [f"classes   mean average precision {precision}, F1 {micro} micro, {macro} macro"]
    return [
        f"accuracy  {_percent(summary['accuracy'])} (95 % interval {_percent(low)} to "
        f"{_percent(high)}) "
        f"on {summary['num_examples']:,} {summary['split']} images{skipped}",
        *several,
        f"controls  {', '.join(controls)}",
        *_fewshot_lines(summary),
    ]


def _headline(summary: dict[str, Any], metric: str) -> str:
    """Format the primary metric of a run as a line."""
    low, high = summary.get(f"{metric}_interval") or (None, None)
    interval = "" if low is None else f" (95 % interval {low:.4g} to {high:.4g})"
    skipped = f", {summary['num_skipped']:,} could not be read" if summary["num_skipped"] else ""
    return (
        f"{metric:<8}  {summary[metric]:.4g}{interval} on {summary['num_examples']:,} "
        f"{summary['split']} images{skipped}"
    )


def _fewshot_lines(summary: dict[str, Any]) -> list[str]:
    return [
        f"few-shot  {_percent(accuracy)} on {name}"
        for name, accuracy in summary.get("fewshot", {}).items()
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def given_settings(args: argparse.Namespace) -> "Settings":
    """Return the settings given by options or by `--set`, by path."""
    from vitral.config.settings import Settings, parse_assignments, parse_settings

    given = {path: getattr(args, name, None) for name, path in _SETTINGS.items()}
    settings = parse_settings({path: value for path, value in given.items() if value is not None})
    # One layer: what contradicts itself in it is an error, not an override.
    return Settings.of({**settings, **parse_assignments(args.set or [])}, "option")


def print_summary(
    args: argparse.Namespace,
    summary: Mapping[str, Any],
    path: Path,
    lines: Callable[[], Sequence[str]],
) -> None:
    """Print the result of a run on the first process, as lines or as JSON."""
    if os.environ.get("RANK", "0") == "0":
        if args.json:
            print(json.dumps({**summary, "path": str(path)}, ensure_ascii=False))
        else:
            print("\n".join(lines()))
        sys.stdout.flush()
