"""`vitral vtab`."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import DATA_DIR_OPTION, RESULTS_OPTION, Option, parse_options

if TYPE_CHECKING:
    from vitral.transfer.vtab import VtabResult

DESCRIPTION = (
    "Score a pretrained model on VTAB-1k's 19 tasks, those that are there: fine-tuned on 1,000 "
    "images of each with one setting for all, tested once on the full test set."
)
OPTIONS = (
    Option(
        "model",
        "a run folder, a model folder, anyone's weights, or hf://owner/name",
        metavar="MODEL",
        required=True,
    ),
    DATA_DIR_OPTION,
    Option("--tasks", "only these, such as dtd,pets", metavar="A,B"),
    Option("--sweep", "choose one rate and length for all tasks by their 200 validation images"),
    Option("--linear", "logistic regression on frozen features: light"),
    Option("--image-size", "pixels of the model's input, N or HxW; left out: 384", metavar="N"),
    Option("--steps", "length of every run; left out: 2500", metavar="N", type=int),
    Option("--batch-size", "images a step, over all processes", metavar="N", type=int),
    Option("--learning-rate", "the peak; left out: 0.01", metavar="X", type=float),
    Option("--seed", "all random numbers follow from it", metavar="N", type=int),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME"),
    Option("--precision", "auto, float32 or bfloat16", metavar="NAME"),
    Option("--output", "the folder; left out: below runs, by what it is", metavar="DIR"),
    Option(
        "--from-format", "read MODEL as this format, where content does not tell", metavar="NAME"
    ),
    RESULTS_OPTION,
    Option(
        "--set",
        "any setting of every run, as in augment.mixup=0; may be repeated",
        metavar="PATH=VALUE",
        repeat=True,
    ),
    Option("--json", "print the summary as one JSON object"),
)
# Options that are settings of every run.
_SETTINGS = {
    "image_size": "model.image_size",
    "steps": "train.steps",
    "batch_size": "train.batch_size",
    "learning_rate": "optimizer.learning_rate",
    "seed": "train.seed",
    "device": "train.device",
    "precision": "train.precision",
    "data_dir": "data.directory",
}


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("vtab", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.files.results import results_path
    from vitral.spec.settings import parse_assignments, parse_settings
    from vitral.transfer.vtab import vtab

    given = {path: getattr(asked, name) for name, path in _SETTINGS.items()}
    settings = parse_settings({path: own for path, own in given.items() if own is not None})
    result = vtab(
        asked.model,
        tasks=[name for name in (asked.tasks or "").split(",") if name],
        sweep=asked.sweep,
        linear=asked.linear,
        settings=settings | parse_assignments(asked.set or []),
        format=asked.from_format,
        output=asked.output,
        results=Path(asked.results or results_path()),
        command=shlex.join(["vitral", "vtab", *tokens]),
    )
    if os.environ.get("RANK", "0") == "0":
        if asked.json:
            print(json.dumps(result.summary | {"path": str(result.path)}, ensure_ascii=False))
        else:
            print("\n".join(_lines(result)))
        sys.stdout.flush()
    return 0


def _lines(result: "VtabResult") -> list[str]:
    """Return what a person reads: the table, what is missing, and where all is."""
    from vitral.figures.paper_beside import paper_beside
    from vitral.figures.results_table import format_rows
    from vitral.figures.vtab_means import describe_paper_means

    lines = [format_rows(result.rows)]
    if not any(paper_beside(row) for row in result.rows):
        lines += describe_paper_means()
    compared = result.summary["dev_accuracies"]
    if compared:
        told = ", ".join(f"{name} {100 * own:.1f} %" for name, own in compared.items())
        lines.append(f"sweep     {told}: {result.summary['chosen']} for all tasks")
    if result.summary["missing"]:
        missing = ", ".join(result.summary["missing"])
        lines.append(f"missing   {missing}: a mean needs every task of its group")
    return [*lines, f"folder    {result.path}"]
