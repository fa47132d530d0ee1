"""`vitral embed`."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import (
    FROM_FORMAT_OPTION,
    HEADLESS_MODEL_OPTION,
    PREPROCESSING_OPTION,
    Option,
    parse_options,
)

if TYPE_CHECKING:
    from vitral.predict.embed import Embedded

DESCRIPTION = "Write the features of images: what a model's head reads."
OPTIONS = (
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
_MOST_SAID = 5


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status; an unreadable image is a row with its error."""
    asked = parse_options("embed", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.predict.embed import check_output, embed, write_features
    from vitral.predict.output import list_images
    from vitral.predict.prepared import check_batch_size, prepare_model
    from vitral.spec.settings import parse_preprocessing

    path = Path(asked.output)
    check_output(path)
    check_batch_size(asked.batch_size)
    images = list_images(asked.images)
    prepared = prepare_model(
        asked.model,
        device=asked.device,
        precision=asked.precision,
        format=asked.from_format,
        preprocessing=parse_preprocessing(asked.set or []),
    )
    dimension = prepared.model.config.feature_dim
    errors: dict[str, str] = {}
    batches = embed(prepared, images, batch_size=asked.batch_size)
    write_features(_noting(batches, errors), path, dimension=dimension)
    for name, reason in list(errors.items())[:_MOST_SAID]:
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
        "precision": str(prepared.precision).removeprefix("torch."),
    }
    if asked.json:
        print(json.dumps({"paths": images, **facts}, ensure_ascii=False))
    else:
        print(f"{path}: {len(images):,} images, {dimension:,} features each")
    return 0


def _noting(batches: "Iterator[Embedded]", errors: dict[str, str]) -> "Iterator[Embedded]":
    for batch in batches:
        errors.update((p, e) for p, e in zip(batch.paths, batch.errors, strict=True) if e)
        yield batch
