"""`vitral vtab`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import (
    DATA_DIR_OPTION,
    FROM_FORMAT_OPTION,
    MODEL_OPTION,
    RESULTS_OPTION,
    Option,
    parse_options,
)
from vitral.cli.training import (
    BATCH_SIZE_OPTION,
    JSON_OPTION,
    MACHINE_OPTIONS,
    SEED_OPTION,
    SET_OPTION,
    given_settings,
    print_summary,
)

if TYPE_CHECKING:
    from vitral.transfer.vtab import VtabResult

DESCRIPTION = (
    "Score a pretrained model on VTAB-1k's 19 tasks, those that are there: fine-tuned on 1,000 "
    "images of each with one setting for all, tested once on the full test set."
)
OPTIONS = (
    MODEL_OPTION,
    DATA_DIR_OPTION,
    Option("--tasks", "only these, such as dtd,pets", metavar="A,B"),
    Option("--sweep", "choose one rate and length for all tasks by their 200 validation images"),
    Option("--linear", "logistic regression on frozen features: light"),
    Option("--image-size", "pixels of the model's input, N or HxW; left out: 384", metavar="N"),
    Option("--steps", "length of every run; left out: 2500", metavar="N", type=int),
    BATCH_SIZE_OPTION,
    Option("--learning-rate", "the peak; left out: 0.01", metavar="X", type=float),
    SEED_OPTION,
    *MACHINE_OPTIONS,
    Option("--output", "the folder; left out: below runs, by what it is", metavar="DIR"),
    FROM_FORMAT_OPTION,
    RESULTS_OPTION,
    SET_OPTION,
    JSON_OPTION,
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("vtab", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.files.results import results_path
    from vitral.transfer.vtab import vtab

    result = vtab(
        asked.model,
        tasks=[name for name in (asked.tasks or "").split(",") if name],
        sweep=asked.sweep,
        linear=asked.linear,
        settings=given_settings(asked),
        format=asked.from_format,
        output=asked.output,
        results=Path(asked.results or results_path()),
        command=shlex.join(["vitral", "vtab", *tokens]),
    )
    print_summary(asked, result.summary, result.path, lambda: _lines(result))
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
