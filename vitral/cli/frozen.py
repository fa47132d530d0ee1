"""`vitral fewshot`, `vitral probe` and `vitral knn`: scores of frozen features."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.console import progress
from vitral.cli.options import (
    DATA_DIR_OPTION,
    FROM_FORMAT_OPTION,
    HEADLESS_MODEL_OPTION,
    PREPROCESSING_OPTION,
    RESULTS_OPTION,
    Option,
    parse_options,
)
from vitral.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vitral.evaluate.frozen.task import FrozenModel, FrozenResult, FrozenTask
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
    args: Any,
    protocol: "Callable[[FrozenModel, FrozenTask], FrozenResult]",
    *,
    with_validation: bool,
) -> "FrozenResult":
    """Open model and data, score them, save the rows, and print notes."""
    from vitral.config.settings import parse_preprocessing
    from vitral.evaluate.frozen.task import open_model, open_task
    from vitral.files.results import keep_results, results_path

    path = Path(args.results or results_path())
    if args.results and not path.absolute().parent.is_dir():
        raise RequestError(f"--results {path}: there is no such folder")
    model = open_model(
        args.model,
        device=args.device,
        precision=args.precision,
        format=args.from_format,
        batch_size=args.batch_size,
        cache=args.cache == "on",
        changes=parse_preprocessing(args.set or []),
    )
    with progress("looking at the images") as report:
        task = open_task(
            args.data,
            channels=model.model.config.in_channels,
            directory=args.data_dir,
            split=args.split,
            with_validation=with_validation,
            report_progress=report,
        )
    _print_notes(task.notes)
    with progress("extracting features") as report:
        result = protocol(dataclasses.replace(model, report_progress=report), task)
    _print_notes(result.notes)
    keep_results(path, result.rows)
    return result


def _print_notes(notes: "tuple[str, ...]") -> None:
    for note in notes:
        print(note if note.startswith("warning: ") else f"note: {note}", file=sys.stderr)


def show(args: Any, result: "FrozenResult", facts: dict[str, Any]) -> int:
    """Print rows as a table, or facts as JSON; return the exit status."""
    from vitral.figures.results_table import format_rows

    print(json.dumps(facts, ensure_ascii=False) if args.json else format_rows(result.rows))
    return 0


def summary_of(result: "FrozenResult") -> dict[str, Any]:
    """Return the facts of a single row in the format of `summary.json`."""
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
    """Return the facts that rows of one task have in common."""
    return {
        "split": row.split,
        "num_examples": row.num_examples,
        "num_skipped": result.num_skipped,
        "model": row.model,
        "data": row.data,
        "precision": row.precision,
    }


PROBE_DESCRIPTION = "Score a model's features by logistic regression on all training images."
PROBE_OPTIONS = (*POSITIONALS, *SHARED_OPTIONS)


def probe(tokens: Sequence[str]) -> int:
    """Run `vitral probe` and return its exit status."""
    args = parse_options("probe", PROBE_OPTIONS, tokens, description=PROBE_DESCRIPTION)
    from vitral.evaluate.frozen.probes import score_probe

    result = score(
        args,
        lambda model, task: score_probe(model, task, controls=args.controls == "on"),
        with_validation=True,
    )
    return show(args, result, summary_of(result))


KNN_DESCRIPTION = "Score a model's features by the votes of the nearest training images."
KNN_OPTIONS = (
    *POSITIONALS,
    Option("--k", "neighbours that vote; left out: 20", metavar="N", type=int),
    Option(
        "--temperature",
        "the smaller, the more the nearest count; left out: 0.07",
        metavar="X",
        type=float,
    ),
    Option("--choose", "choose both, by leaving training images out in turn"),
    *SHARED_OPTIONS,
)


def knn(tokens: Sequence[str]) -> int:
    """Run `vitral knn` and return its exit status."""
    args = parse_options("knn", KNN_OPTIONS, tokens, description=KNN_DESCRIPTION)
    from vitral.evaluate.frozen.probes import Vote, score_knn

    given: dict[str, Any] = {
        name: value
        for name, value in (("k", args.k), ("temperature", args.temperature))
        if value is not None
    }
    result = score(
        args,
        lambda model, task: score_knn(
            model,
            task,
            vote=Vote(**given) if given else None,
            choose=args.choose,
            controls=args.controls == "on",
        ),
        with_validation=False,
    )
    return show(args, result, summary_of(result))


FEWSHOT_DESCRIPTION = "Score a model's features after few images of each class, by least squares."
FEWSHOT_OPTIONS = (
    *POSITIONALS,
    Option(
        "--shots",
        "images a class, such as 1,5; left out: of 1,5,10,25 those that every class has",
        metavar="N,N",
    ),
    Option("--seeds", "draws of these images", metavar="N", type=int, default=3),
    Option(
        "--l2",
        "strength of the penalty, or sweep: chosen on images that are neither learnt from nor "
        "scored",
        metavar="X",
        default="1024",
    ),
    *SHARED_OPTIONS,
)


def fewshot(tokens: Sequence[str]) -> int:
    """Run `vitral fewshot` and return its exit status."""
    args = parse_options("fewshot", FEWSHOT_OPTIONS, tokens, description=FEWSHOT_DESCRIPTION)
    from vitral.evaluate.frozen.fewshot import SWEEP, score_fewshot

    shots, l2 = _shots(args.shots), _l2(args.l2, SWEEP)
    result = score(
        args,
        lambda model, task: score_fewshot(
            model, task, shots=shots, num_seeds=args.seeds, l2=l2, controls=args.controls == "on"
        ),
        with_validation=l2 == SWEEP,
    )
    return show(args, result, _fewshot_facts(result))


def _shots(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"--shots {text}: give whole numbers, such as 1,5,10,25") from None


def _l2(text: str, sweep: str) -> float | str:
    if text == sweep:
        return sweep
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"--l2 {text}: give a number, or {sweep}") from None


def _fewshot_facts(result: "FrozenResult") -> dict[str, Any]:
    singles = [row for row in result.rows if isinstance(row.seed, int)]
    means = [row for row in result.rows if isinstance(row.seed, tuple)]
    varying = ("shots", "chosen")
    settings = {k: v for k, v in singles[0].settings.items() if k not in varying}
    return {
        "results": [
            {
                "shots": row.settings["shots"],
                "seed": row.seed,
                "accuracy": row.value,
                "accuracy_interval": row.interval,
                **row.settings.get("chosen", {}),
                "controls": row.controls,
            }
            for row in singles
        ],
        "means": [
            {
                "shots": row.settings["shots"],
                "seeds": row.seed,
                "accuracy": row.value,
                "accuracy_interval": row.interval,
                "controls": row.controls,
            }
            for row in means
        ],
        "protocol": {"name": "fewshot", **settings, **shared_facts(result, singles[0])},
    }
