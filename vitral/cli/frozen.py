"""What the verbs that score frozen features share: options, opening, rows."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.options import (
    DATA_DIR_OPTION,
    FROM_FORMAT_OPTION,
    HEADLESS_MODEL_OPTION,
    PREPROCESSING_OPTION,
    RESULTS_OPTION,
    Option,
)
from vitral.cli.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from vitral.evaluate.frozen import FrozenModel, FrozenTask
    from vitral.evaluate.frozen_rows import FrozenResult
    from vitral.files.results import ResultRow

POSITIONALS = (
    HEADLESS_MODEL_OPTION,
    Option(
        "data",
        "as for training: learnt from its train split, scored on test",
        metavar="DATA",
        required=True,
    ),
)
SHARED_OPTIONS = (
    DATA_DIR_OPTION,
    Option(
        "--split",
        "what is scored, test or validation; left out: test, else validation",
        metavar="NAME",
    ),
    Option("--batch-size", "images at once; changes no score", metavar="N", type=int, default=64),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME", default="auto"),
    Option("--precision", "float32 unless asked otherwise", metavar="NAME", default="float32"),
    FROM_FORMAT_OPTION,
    PREPROCESSING_OPTION,
    Option(
        "--controls",
        "on or off: what costs time beside the score: pixels, random weights, shuffled labels",
        metavar="ON",
        choices=("on", "off"),
        default="on",
    ),
    Option(
        "--cache",
        "on or off: whether features are kept and found again",
        metavar="ON",
        choices=("on", "off"),
        default="on",
    ),
    RESULTS_OPTION,
    Option("--json", "print one JSON object"),
)


def score(
    asked: Any,
    protocol: "Callable[[FrozenModel, FrozenTask], FrozenResult]",
    *,
    with_validation: bool,
) -> "FrozenResult":
    """Open model and data, score them, keep the rows, and say what should be known."""
    from vitral.errors import RequestError
    from vitral.evaluate.frozen import open_model, open_task
    from vitral.files.results import keep_results, results_path
    from vitral.spec.settings import parse_preprocessing

    path = Path(asked.results or results_path())
    if asked.results and not path.absolute().parent.is_dir():
        raise RequestError(f"--results {path}: there is no such folder")
    model = open_model(
        asked.model,
        device=asked.device,
        precision=asked.precision,
        format=asked.from_format,
        batch_size=asked.batch_size,
        cache=asked.cache == "on",
        changes=parse_preprocessing(asked.set or []),
    )
    with progress("looking at the images") as report:
        task = open_task(
            asked.data,
            channels=model.model.config.in_channels,
            directory=asked.data_dir,
            split=asked.split,
            with_validation=with_validation,
            report_progress=report,
        )
    _say(task.notes)
    with progress("extracting features") as report:
        result = protocol(dataclasses.replace(model, report_progress=report), task)
    _say(result.notes)
    keep_results(path, result.rows)
    return result


def _say(notes: "tuple[str, ...]") -> None:
    for note in notes:
        print(note if note.startswith("warning: ") else f"note: {note}", file=sys.stderr)


def show(asked: Any, result: "FrozenResult", facts: dict[str, Any]) -> int:
    """Print rows as a table, or facts as JSON; return the exit status."""
    from vitral.figures.results_table import format_rows

    print(json.dumps(facts, ensure_ascii=False) if asked.json else format_rows(result.rows))
    return 0


def summary_of(result: "FrozenResult") -> dict[str, Any]:
    """Return the facts of a single row as `summary.json` has them."""
    [row] = result.rows
    return {
        "accuracy": row.value,
        "accuracy_interval": list(row.interval or ()),
        "loss": result.loss,
        **shared_facts(result, row),
        "majority_accuracy": row.controls["majority"],
        "controls": row.controls,
        "settings": row.settings,
    }


def shared_facts(result: "FrozenResult", row: "ResultRow") -> dict[str, Any]:
    """Return what rows of one task have in common."""
    return {
        "split": row.split,
        "num_examples": row.num_examples,
        "num_skipped": result.num_skipped,
        "model": row.model,
        "data": row.data,
        "precision": row.precision,
    }
