"""`vitral finetune`."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vitral.cli.options import DATA_DIR_OPTION, RESULTS_OPTION, Option, parse_options

DESCRIPTION = (
    "Fine-tune a pretrained model on your images: a probe first, then everything, and a test score "
    "in the end; or by the paper's protocols."
)
OPTIONS = (
    Option(
        "model",
        "a run folder, a model folder, anyone's weights, or hf://owner/name",
        metavar="MODEL",
        required=True,
    ),
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
    Option(
        "--head", "probe or zero: what the new head starts from", metavar="HOW", default="probe"
    ),
    Option("--recipe", "settings by name instead of the protocol's", metavar="NAME"),
    Option("--epochs", "length of a run", metavar="N", type=float),
    Option("--steps", "length of a run, in optimizer steps", metavar="N", type=int),
    Option("--batch-size", "images a step, over all processes", metavar="N", type=int),
    Option("--learning-rate", "the peak", metavar="X", type=float),
    Option("--seed", "all random numbers follow from it", metavar="N", type=int),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME"),
    Option("--precision", "auto, float32 or bfloat16", metavar="NAME"),
    Option("--compile", "auto, on or off", metavar="WHEN"),
    Option("--output", "the folder; left out: below runs, by what it is", metavar="DIR"),
    Option(
        "--resume", "auto, never, or the path of a run to go on with", metavar="HOW", default="auto"
    ),
    Option(
        "--from-format", "read MODEL as this format, where content does not tell", metavar="NAME"
    ),
    RESULTS_OPTION,
    Option(
        "--set",
        "any setting, as in augment.mixup=0; may be repeated",
        metavar="PATH=VALUE",
        repeat=True,
    ),
    Option("--json", "print the summary as one JSON object"),
)
# Options that are settings of every run.
_SETTINGS = {
    "image_size": "model.image_size",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
    "device": "train.device",
    "precision": "train.precision",
    "compile": "train.compile",
    "data_dir": "data.directory",
}


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("finetune", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.cli.train import summary_lines
    from vitral.errors import RequestError
    from vitral.figures.results_table import format_rows
    from vitral.files.results import results_path
    from vitral.spec.settings import parse_assignments, parse_settings
    from vitral.transfer.finetune import finetune

    given = {path: getattr(asked, name) for name, path in _SETTINGS.items()}
    settings = parse_settings({path: own for path, own in given.items() if own is not None})
    rates = _rates(asked.rates)
    if asked.learning_rate is not None and rates:
        raise RequestError(
            f"--learning-rate {asked.learning_rate:g} and --rates {asked.rates} both say which "
            "rates are tried: give one of them"
        )
    if asked.learning_rate is not None and asked.protocol not in (None, "bit-hyperrule"):
        rates = (asked.learning_rate,)
    elif asked.learning_rate is not None:
        settings["optimizer.learning_rate"] = asked.learning_rate
    settings |= parse_assignments(asked.set or [])
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
    if os.environ.get("RANK", "0") == "0":
        if asked.json:
            print(json.dumps(result.summary | {"path": str(result.path)}, ensure_ascii=False))
        else:
            lines = summary_lines(result.summary) if len(result.rows) < 2 else []
            print("\n".join([*lines, *([format_rows(result.rows)] if result.rows else [])]))
            print(f"model     {result.path / 'model'}")
            if (result.path / "report.html").exists():
                print(f"report    {result.path / 'report.html'}")
        sys.stdout.flush()
    return 0


def _rates(text: str | None) -> tuple[float, ...]:
    from vitral.errors import RequestError

    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise RequestError(f"--rates {text}: give numbers, such as 0.003,0.01") from None
