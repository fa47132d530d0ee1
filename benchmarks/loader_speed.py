"""Our loader against Pillow with torch's DataLoader: decode, inception crop, resize, flip, batch.

python benchmarks/loader_speed.py FOLDER_OF_CLASS_FOLDERS [--rounds 7] [--workers 2]
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from interleave import compare, options, record
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from vitral.data.images import Examples, open_images
from vitral.data.loader import TrainingBatches
from vitral.data.order import uniforms
from vitral.data.transforms import NUM_UNIFORMS, inception_box
from vitral.spec.preprocessing import default_preprocessing
from vitral.spec.run import AugmentSettings

SIZE, BATCH_SIZE = 224, 64
SETTINGS = AugmentSettings(crop="inception", min_area=0.08)


class PillowImages(Dataset):
    """The same crops by Pillow."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        import io

        content = self.examples.read(index)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        numbers = uniforms(0, 0, np.array([index]), count=NUM_UNIFORMS)[0]
        top, left, height, width = inception_box(
            (image.height, image.width), numbers, settings=SETTINGS
        )
        box = (left, top, left + width, top + height)
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
        pixels = np.array(image)
        if numbers[-1] < 0.5:
            pixels = pixels[:, ::-1].copy()
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.examples.labels[index])


def ours(examples: Examples, workers: int) -> Callable[[], object]:
    """Return one epoch by our loader."""
    batches = TrainingBatches(
        examples,
        default_preprocessing((SIZE, SIZE), channels=3),
        SETTINGS,
        seed=0,
        batch_size=BATCH_SIZE,
        workers=workers,
    )
    steps = -(-len(examples) // BATCH_SIZE)
    return lambda: [step.micro_batches[0]["image"].shape for step in batches.steps(0, steps)]


def theirs(examples: Examples, workers: int) -> Callable[[], object]:
    """Return one epoch by Pillow and the DataLoader, whose processes stay alive between epochs."""
    loader = DataLoader(
        PillowImages(examples),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: [images.shape for images, _ in loader]


def main() -> None:
    """Measure and record."""
    parser = options(__doc__)
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    asked = parser.parse_args()
    everything = open_images(asked.folder).everything()
    rows: list[dict[str, Any]] = []
    for workers in asked.workers:
        measured = compare(
            ours(everything, workers),
            theirs(everything, workers),
            rounds=asked.rounds,
            device=torch.device("cpu"),
        )
        rate = len(everything) / measured["ours_seconds"]
        facts = {"images": len(everything), "size": SIZE, "workers": workers}
        rows.append({**facts, "our_images_per_second": rate, **measured})
    record("loader_speed", rows, asked=asked)


if __name__ == "__main__":
    main()
