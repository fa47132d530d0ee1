"""Extraction of features beside the bare forward pass.

python benchmarks/features_speed.py FOLDER_OF_CLASS_FOLDERS [--rounds 15] [--images 96] [--batch 16]

The peer calls `model.features` on float batches that lie ready. Ours begins with images: kept
decoded, at their own size (`extract_features`), and as JPEGs in files (what `vitral embed` does).
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
    """Return `count` examples, the same again where there are fewer."""
    everything = data.everything()
    return everything.select(np.arange(count) % len(everything))


@torch.no_grad()
def bare(prepared: ModelRunner, examples: Examples, batch_size: int) -> Callable[[], object]:
    """Return the forward pass alone, on batches that lie ready."""
    how, device = prepared.preprocessing, prepared.device
    loaded = evaluation_batches(examples, preprocessing=how, batch_size=batch_size, errors={})
    ready = [prepare_on_device(own, device=device, preprocessing=how)["image"] for own in loaded]

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


def measure(asked: argparse.Namespace, precision: torch.dtype) -> list[dict[str, Any]]:
    """Return a row for each kind of image."""
    device = torch.device(asked.device)
    model = create_model(MODEL, image_size=SIZE, num_classes=0).eval().to(device)
    prepared = ModelRunner(model, device, precision, model.preprocessing)
    data = open_dataset(asked.folder)
    kept = some(data.keeping_decoded(), asked.images)
    files = some(data, asked.images)
    paths = [f"{asked.folder}/{files.name(index)}" for index in range(len(files))]
    forward = bare(prepared, kept, asked.batch)
    cases = {
        "decoded": decoded(prepared, kept, asked.batch),
        "JPEGs": lambda: list(embed(prepared, paths, batch_size=asked.batch)),
    }
    rows = []
    for images, ours in cases.items():
        measured = compare(ours, forward, rounds=asked.rounds, device=device)
        facts = {"model": MODEL, "size": SIZE, "batch": asked.batch, "images": images}
        facts["precision"] = str(precision).removeprefix("torch.")
        rate = asked.images / measured["ours_seconds"]
        rows.append({**facts, "our_images_per_second": rate, **measured})
    return rows


def main() -> None:
    """Measure and record."""
    parser = options(__doc__)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    rows = [row for own in (torch.float32, torch.bfloat16) for row in measure(asked, own)]
    record("features_speed", rows, asked=asked)


if __name__ == "__main__":
    main()
