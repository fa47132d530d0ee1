"""`vitral finetune` and `vitral vtab`."""

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
from vitral.cli.train import (
    BATCH_SIZE_OPTION,
    COMPILE_OPTION,
    JSON_OPTION,
    LENGTH_OPTIONS,
    MACHINE_OPTIONS,
    RESUME_OPTION,
    SEED_OPTION,
    SET_OPTION,
    given_settings,
    print_summary,
)

if TYPE_CHECKING:
    from vitral.transfer.finetune import FineTuned
    from vitral.transfer.vtab import VtabResult


FINETUNE_DESCRIPTION = (
    "Fine-tune a pretrained model on your images: a probe first, then everything, and a test score "
    "in the end; or by the paper's protocols."
)
FINETUNE_OPTIONS = (
    MODEL_OPTION,
    Option("data", "as for training", metavar="DATA", required=True),
    DATA_DIR_OPTION,
    Option(
        "--protocol",
        "paper, paper-table2 or bit-hyperrule; left out: our own, for your images",
        metavar="NAME",
    ),
    Option("--rates", "learning rates that a protocol compares, such as 0.003,0.01", metavar="X,X"),
    Option("--seeds", "runs of a protocol that the score is the mean of", metavar="N", type=int),
    Option("--image-size", "pixels of the model's input, N or HxW", metavar="N"),
    Option("--head", "zero or probe: what the new head starts from", metavar="HOW", default="zero"),
    Option("--recipe", "settings by name instead of the protocol's", metavar="NAME"),
    *LENGTH_OPTIONS,
    BATCH_SIZE_OPTION,
    Option("--learning-rate", "the peak", metavar="X", type=float),
    SEED_OPTION,
    *MACHINE_OPTIONS,
    COMPILE_OPTION,
    Option("--output", "the folder; left out: below runs, by what it is", metavar="DIR"),
    RESUME_OPTION,
    FROM_FORMAT_OPTION,
    RESULTS_OPTION,
    SET_OPTION,
    JSON_OPTION,
)


def finetune(tokens: Sequence[str]) -> int:
    """Run `vitral finetune` and return its exit status."""
    args = parse_options("finetune", FINETUNE_OPTIONS, tokens, description=FINETUNE_DESCRIPTION)
    from vitral.errors import RequestError
    from vitral.files.results import results_path
    from vitral.transfer.finetune import finetune

    settings = given_settings(args)
    rates = _rates(args.rates)
    if args.learning_rate is not None and rates:
        raise RequestError(
            f"--learning-rate {args.learning_rate:g} and --rates {args.rates} both say which "
            "rates are tried: give one of them"
        )
    if args.learning_rate is not None and args.protocol not in (None, "bit-hyperrule"):
        rates = (settings["optimizer.learning_rate"],)
        settings = settings.without("optimizer.learning_rate")
    result = finetune(
        args.model,
        args.data,
        protocol=args.protocol,
        rates=rates,
        seeds=args.seeds,
        head=args.head,
        recipe=args.recipe,
        settings=settings,
        format=args.from_format,
        output=args.output,
        resume=args.resume,
        results=Path(args.results or results_path()),
        command=shlex.join(["vitral", "finetune", *tokens]),
    )
    print_summary(args, result.summary, result.path, lambda: _finetune_lines(result))
    return 0


def _finetune_lines(result: "FineTuned") -> list[str]:
    """Format the score, its rows, and the paths of model and report as lines."""
    from vitral.cli.train import place_lines, summary_lines
    from vitral.figures.results_table import format_rows

    lines = summary_lines(result.summary) if len(result.rows) < 2 else []
    if result.rows:
        lines.append(format_rows(result.rows))
    return [*lines, *place_lines(result.path)]


def _rates(text: str | None) -> tuple[float, ...]:
    from vitral.errors import RequestError

    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise RequestError(f"--rates {text}: give numbers, such as 0.003,0.01") from None


VTAB_DESCRIPTION = (
    "Score a pretrained model on VTAB-1k's 19 tasks, those that are there: fine-tuned on 1,000 "
    "images of each with one setting for all, tested once on the full test set."
)
VTAB_OPTIONS = (
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


def vtab(tokens: Sequence[str]) -> int:
    """Run `vitral vtab` and return its exit status."""
    args = parse_options("vtab", VTAB_OPTIONS, tokens, description=VTAB_DESCRIPTION)
    from vitral.files.results import results_path
    from vitral.transfer.vtab import vtab

    result = vtab(
        args.model,
        tasks=[name for name in (args.tasks or "").split(",") if name],
        sweep=args.sweep,
        linear=args.linear,
        settings=given_settings(args),
        format=args.from_format,
        output=args.output,
        results=Path(args.results or results_path()),
        command=shlex.join(["vitral", "vtab", *tokens]),
    )
    print_summary(args, result.summary, result.path, lambda: _vtab_lines(result))
    return 0


def _vtab_lines(result: "VtabResult") -> list[str]:
    """Format the table, the missing tasks, and the path of the folder as lines."""
    from vitral.figures.paper_comparison import comparable_paper_rows, describe_paper_means
    from vitral.figures.results_table import format_rows

    lines = [format_rows(result.rows)]
    if not any(comparable_paper_rows(row) for row in result.rows):
        lines += describe_paper_means()
    compared = result.summary["dev_accuracies"]
    if compared:
        scores = ", ".join(f"{name} {100 * accuracy:.1f} %" for name, accuracy in compared.items())
        lines.append(f"sweep     {scores}: {result.summary['chosen']} for all tasks")
    if result.summary["missing"]:
        missing = ", ".join(result.summary["missing"])
        lines.append(f"missing   {missing}: a mean needs every task of its group")
    return [*lines, f"folder    {result.path}"]
