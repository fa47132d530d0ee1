"""`vitral finetune`."""

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

DESCRIPTION = (
    "Fine-tune a pretrained model on your images: a probe first, then everything, and a test score "
    "in the end; or by the paper's protocols."
)
OPTIONS = (
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


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("finetune", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.errors import RequestError
    from vitral.files.results import results_path
    from vitral.transfer.finetune import finetune

    settings = given_settings(asked)
    rates = _rates(asked.rates)
    if asked.learning_rate is not None and rates:
        raise RequestError(
            f"--learning-rate {asked.learning_rate:g} and --rates {asked.rates} both say which "
            "rates are tried: give one of them"
        )
    if asked.learning_rate is not None and asked.protocol not in (None, "bit-hyperrule"):
        rates = (settings.pop("optimizer.learning_rate"),)
    result = finetune(
        asked.model,
        asked.data,
        protocol=asked.protocol,
        rates=rates,
        seeds=asked.seeds,
        head=asked.head,
        recipe=asked.recipe,
        settings=settings,
        format=asked.from_format,
        output=asked.output,
        resume=asked.resume,
        results=Path(asked.results or results_path()),
        command=shlex.join(["vitral", "finetune", *tokens]),
    )
    print_summary(asked, result.summary, result.path, lambda: _lines(result))
    return 0


def _lines(result: "FineTuned") -> list[str]:
    """Return what a person reads: the score, its rows, and where model and report are."""
    from vitral.cli.train import summary_lines
    from vitral.figures.results_table import format_rows

    lines = summary_lines(result.summary) if len(result.rows) < 2 else []
    if result.rows:
        lines.append(format_rows(result.rows))
    lines.append(f"model     {result.path / 'model'}")
    if (result.path / "report.html").exists():
        lines.append(f"report    {result.path / 'report.html'}")
    return lines


def _rates(text: str | None) -> tuple[float, ...]:
    from vitral.errors import RequestError

    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise RequestError(f"--rates {text}: give numbers, such as 0.003,0.01") from None
