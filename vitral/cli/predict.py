"""`vitral predict`."""

import json
from collections.abc import Sequence
from pathlib import Path

from vitral.cli.options import (
    FROM_FORMAT_OPTION,
    MODEL_OPTION,
    PREPROCESSING_OPTION,
    Option,
    parse_options,
)

DESCRIPTION = "Name the classes of images, one row each."
OPTIONS = (
    MODEL_OPTION,
    Option("images", "files or folders", metavar="IMAGES", required=True, repeat=True),
    Option("--top", "how many classes a row names", metavar="N", type=int, default=5),
    Option(
        "--format",
        "table, csv, jsonl or parquet; left out: by --output's ending, else table",
        metavar="NAME",
        choices=("table", "csv", "jsonl", "parquet"),
    ),
    Option("--output", "a file; left out: standard output", metavar="FILE"),
    Option("--batch-size", "images at once", metavar="N", type=int, default=64),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME", default="auto"),
    Option("--precision", "auto, float32 or bfloat16", metavar="NAME", default="auto"),
    FROM_FORMAT_OPTION,
    PREPROCESSING_OPTION,
    Option("--json", "print one JSON object"),
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status; an unreadable image is a row with its error."""
    asked = parse_options("predict", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.errors import RequestError
    from vitral.predict.output import FORMATS, list_images, write_predictions
    from vitral.predict.predictor import Predictor
    from vitral.spec.settings import parse_preprocessing

    if asked.json and (asked.output or asked.format):
        raise RequestError("--json prints to standard output: leave --output and --format out")
    if asked.output and not Path(asked.output).absolute().parent.is_dir():
        raise RequestError(f"--output {asked.output}: there is no such folder")
    images = list_images(asked.images)
    predictor = Predictor(
        asked.model,
        device=asked.device,
        precision=asked.precision,
        batch_size=asked.batch_size,
        top=asked.top,
        format=asked.from_format,
        preprocessing=parse_preprocessing(asked.set or []),
    )
    path = Path(asked.output) if asked.output else None
    if asked.json:
        rows = [prediction.as_row() for prediction in predictor.predict(images)]
        print(json.dumps({"predictions": rows}, ensure_ascii=False))
        return 0
    ending = path.suffix.removeprefix(".") if path else ""
    chosen = asked.format or (ending if ending in FORMATS else "table")
    top = min(asked.top, len(predictor.classes))
    write_predictions(predictor.predict(images), format=chosen, path=path, top=top)
    return 0
