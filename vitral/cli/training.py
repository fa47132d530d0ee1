"""What the verbs that train share: options, and the settings of a run that they stand for."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitral.cli.options import Option

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
"""The settings that options stand for."""


def given_settings(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a run that were given, by path: by an option, or by `--set`."""
    from vitral.spec.settings import parse_assignments, parse_settings

    given = {path: getattr(asked, name, None) for name, path in _SETTINGS.items()}
    settings = parse_settings({path: own for path, own in given.items() if own is not None})
    return settings | parse_assignments(asked.set or [])


def print_summary(
    asked: argparse.Namespace,
    summary: Mapping[str, Any],
    path: Path,
    lines: Callable[[], Sequence[str]],
) -> None:
    """Print what a run gave, once over all processes: lines for a person, or JSON."""
    if os.environ.get("RANK", "0") == "0":
        if asked.json:
            print(json.dumps({**summary, "path": str(path)}, ensure_ascii=False))
        else:
            print("\n".join(lines()))
        sys.stdout.flush()
