"""Compare feature extraction with the bare forward pass.

python benchmarks/features_speed.py FOLDER_OF_CLASS_FOLDERS [--rounds 15] [--images 96] [--batch 16]

The peer calls `model.features` on prepared float batches. Ours starts from images: decoded in
memory at their original size (`extract_features`), and as JPEG files (as `vitral embed` does).
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from interleave import compare, options, record

from vitral.data.dataset import ImageDataset, open_dataset
from vitral.data.device_transforms import prepare_on_device
from vitral.data.examples import Examples
from vitral.data.loader import evaluation_batches
from vitral.evaluate.features import extract_features
from vitral.models.build import create_model
from vitral.predict.embed import embed
from vitral.predict.runner import ModelRunner
from vitral.runtime.device import autocast

MODEL, SIZE = "ViT-S/16", 224


def some(data: ImageDataset, count: int) -> Examples:
    """Return `count` examples, repeated if there are fewer."""
    everything = data.everything()
    return everything.select(np.arange(count) % len(everything))


@torch.no_grad()
def bare(prepared: ModelRunner, examples: Examples, batch_size: int) -> Callable[[], object]:
    """Return the forward pass alone, on prepared batches."""
    how, device = prepared.preprocessing, prepared.device
    loaded = evaluation_batches(examples, preprocessing=how, batch_size=batch_size, errors={})
    ready = [
        prepare_on_device(batch, device=device, preprocessing=how)["image"] for batch in loaded
    ]

    @torch.no_grad()
    def forward() -> None:
        for images in ready:
            with autocast(device, prepared.precision):
                prepared.model.features(images)

    return forward


def decoded(prepared: ModelRunner, examples: Examples, batch_size: int) -> Callable[[], object]:
    """Return our extraction."""
    return lambda: extract_features(
        prepared.model,
        examples,
        preprocessing=prepared.preprocessing,
        batch_size=batch_size,
        device=prepared.device,
        precision=prepared.precision,
    )


def measure(args: argparse.Namespace, precision: torch.dtype) -> list[dict[str, Any]]:
    """Return a row for each kind of image."""
    device = torch.device(args.device)
    model = create_model(MODEL, image_size=SIZE, num_classes=0).eval().to(device)
    prepared = ModelRunner(model, device, precision, model.preprocessing)
    data = open_dataset(args.folder)
    examples = some(data.keeping_decoded(), args.images)
    files = some(data, args.images)
    paths = [f"{args.folder}/{files.name(index)}" for index in range(len(files))]
    forward = bare(prepared, examples, args.batch)
    cases = {
        "decoded": decoded(prepared, examples, args.batch),
        "JPEGs": lambda: list(embed(prepared, paths, batch_size=args.batch)),
    }
    rows = []
    for images, ours in cases.items():
        measured = compare(ours, forward, rounds=args.rounds, device=device)
        facts = {"model": MODEL, "size": SIZE, "batch": args.batch, "images": images}
        facts["precision"] = str(precision).removeprefix("torch.")
        rate = args.images / measured["ours_seconds"]
        rows.append({**facts, "our_images_per_second": rate, **measured})
    return rows


def main() -> None:
    """Measure and record."""
    parser = options(__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    rows = [
        row for precision in (torch.float32, torch.bfloat16) for row in measure(args, precision)
    ]
    record("features_speed", rows, args=args)


if __name__ == "__main__":
    main()
