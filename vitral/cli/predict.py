"""`vitral predict` and `vitral embed`."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import (
    FROM_FORMAT_OPTION,
    HEADLESS_MODEL_OPTION,
    MODEL_OPTION,
    PREPROCESSING_OPTION,
    Option,
    parse_options,
)

if TYPE_CHECKING:
    from vitral.predict.embed import Embedded


PREDICT_DESCRIPTION = "Name the classes of images, one row each."
PREDICT_OPTIONS = (
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


def predict(tokens: Sequence[str]) -> int:
    """Run `vitral predict` and return its exit status; unreadable images are rows with an error."""
    args = parse_options("predict", PREDICT_OPTIONS, tokens, description=PREDICT_DESCRIPTION)
    from vitral.config.settings import parse_preprocessing
    from vitral.errors import RequestError
    from vitral.predict.output import FORMATS, list_images, write_predictions
    from vitral.predict.predictor import Predictor

    if args.json and (args.output or args.format):
        raise RequestError("--json prints to standard output: leave --output and --format out")
    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise RequestError(f"--output {args.output}: there is no such folder")
    images = list_images(args.images)
    predictor = Predictor(
        args.model,
        device=args.device,
        precision=args.precision,
        batch_size=args.batch_size,
        top=args.top,
        format=args.from_format,
        preprocessing=parse_preprocessing(args.set or []),
    )
    path = Path(args.output) if args.output else None
    if args.json:
        rows = [prediction.as_row() for prediction in predictor.predict(images)]
        print(json.dumps({"predictions": rows}, ensure_ascii=False))
        return 0
    ending = path.suffix.removeprefix(".") if path else ""
    chosen = args.format or (ending if ending in FORMATS else "table")
    top = min(args.top, len(predictor.classes))
    write_predictions(predictor.predict(images), format=chosen, path=path, top=top)
    return 0


EMBED_DESCRIPTION = "Write the features of images: what a model's head reads."
EMBED_OPTIONS = (
    HEADLESS_MODEL_OPTION,
    Option("images", "files or folders", metavar="IMAGES", required=True, repeat=True),
    Option("--output", "a file that ends in .npz or .parquet", metavar="FILE", required=True),
    Option("--batch-size", "images at once", metavar="N", type=int, default=64),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME", default="auto"),
    Option("--precision", "auto, float32 or bfloat16", metavar="NAME", default="auto"),
    FROM_FORMAT_OPTION,
    PREPROCESSING_OPTION,
    Option("--json", "print one JSON object"),
)
_MAX_ERRORS = 5


def embed(tokens: Sequence[str]) -> int:
    """Run `vitral embed` and return its exit status; unreadable images are rows with an error."""
    args = parse_options("embed", EMBED_OPTIONS, tokens, description=EMBED_DESCRIPTION)
    from vitral.config.settings import parse_preprocessing
    from vitral.predict.embed import check_output, embed, write_features
    from vitral.predict.output import list_images
    from vitral.predict.runner import check_batch_size, open_runner

    path = Path(args.output)
    check_output(path)
    check_batch_size(args.batch_size)
    images = list_images(args.images)
    runner = open_runner(
        args.model,
        device=args.device,
        precision=args.precision,
        format=args.from_format,
        preprocessing=parse_preprocessing(args.set or []),
    )
    dimension = runner.model.config.feature_dim
    errors: dict[str, str] = {}
    batches = embed(runner, images, batch_size=args.batch_size)
    write_features(_collect_errors(batches, errors), path, dimension=dimension)
    for name, reason in list(errors.items())[:_MAX_ERRORS]:
        print(f"{name}: {reason}", file=sys.stderr)
    if errors:
        print(
            f"{len(errors):,} of {len(images):,} images could not be read: their features are NaN",
            file=sys.stderr,
        )
    facts = {
        "output": str(path),
        "num_images": len(images),
        "num_errors": len(errors),
        "dimension": dimension,
        "precision": str(runner.precision).removeprefix("torch."),
    }
    if args.json:
        print(json.dumps({"paths": images, **facts}, ensure_ascii=False))
    else:
        print(f"{path}: {len(images):,} images, {dimension:,} features each")
    return 0


def _collect_errors(batches: "Iterator[Embedded]", errors: dict[str, str]) -> "Iterator[Embedded]":
    for batch in batches:
        errors.update((p, e) for p, e in zip(batch.paths, batch.errors, strict=True) if e)
        yield batch
