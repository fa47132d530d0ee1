"""Compare our loader with bare decoding, and with Pillow and torch's DataLoader.

python benchmarks/loader_speed.py FOLDER_OF_CLASS_FOLDERS [--rounds 15] [--workers 2]

Decode, inception crop to 224 px, flip, batch: of the images as they are, of photos of 12 megapixels
(made of some of them by enlarging), and of shards packed at 256 px.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleave import compare, options, record
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import AugmentSettings
from vitral.data.dataset import open_dataset
from vitral.data.device_transforms import flip_left_right
from vitral.data.examples import Examples
from vitral.data.geometry import NUM_UNIFORMS, inception_box
from vitral.data.jpeg import decode_whole
from vitral.data.loader import TrainingBatches
from vitral.data.order import uniforms
from vitral.data.pack import pack
from vitral.data.pack_shard import PackSettings, encode_jpeg

SIZE, BATCH_SIZE, PACKED_SIDE = 224, 64, 256
NUM_IMAGES = 960
"""Images per epoch; many, so that the first and last batches matter little."""
LARGE, NUM_LARGE = (4000, 3000), 32
SETTINGS = AugmentSettings(crop="inception", min_area=0.08)


class MemoryStore:
    """Files in memory, to exclude the disk."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self._contents = contents
        self.names = [str(number) for number in range(len(contents))]

    def read(self, number: int) -> bytes:
        """Return a file's bytes."""
        return self._contents[number]

    def stamp(self, number: int) -> str | None:
        """Nothing is cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each file is read by itself."""
        return None


class PillowImages(Dataset):
    """The same crops by Pillow."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
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


def in_memory(contents: Sequence[bytes]) -> Examples:
    """Return files as examples."""
    numbers = np.arange(len(contents))
    return Examples(MemoryStore(contents), numbers, numbers % 2)


def ours(examples: Examples, workers: int, *, scaled: bool = False) -> Callable[[], object]:
    """Return one epoch of our loader, with flips."""
    batches = TrainingBatches(
        examples,
        default_preprocessing((SIZE, SIZE), channels=3),
        SETTINGS,
        seed=0,
        batch_size=BATCH_SIZE,
        workers=workers,
        scaled_decoding=scaled,
    )
    steps = -(-len(examples) // BATCH_SIZE)

    def epoch() -> list[torch.Size]:
        loaded = (step.micro_batches[0] for step in batches.steps(0, steps))
        return [flip_left_right(batch["image"], batch["flip"]).shape for batch in loaded]

    return epoch


def pillow(examples: Examples, workers: int) -> Callable[[], object]:
    """Return one epoch of Pillow and the DataLoader, whose workers persist between epochs."""
    loader = DataLoader(
        PillowImages(examples),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: [images.shape for images, _ in loader]


def bare(examples: Examples, workers: int) -> Callable[[], object]:
    """Return full decoding by libjpeg-turbo alone, in as many threads."""
    pool = ThreadPoolExecutor(max(workers, 1))

    def decode(index: int) -> tuple[int, ...]:
        pixels = decode_whole(examples.read(index))
        assert pixels is not None, "only JPEGs can be measured"
        return pixels.shape

    def epoch() -> list[tuple[int, ...]]:
        indices = range(len(examples))
        return list(pool.map(decode, indices) if workers else map(decode, indices))

    return epoch


def enlarged(contents: Sequence[bytes]) -> list[bytes]:
    """Return photos of 12 megapixels."""
    images = (Image.open(io.BytesIO(content)).convert("RGB") for content in contents)
    large = (np.asarray(image.resize(LARGE, Image.Resampling.BICUBIC)) for image in images)
    return [encode_jpeg(pixels, quality=90) for pixels in large]


def packed(folder: str) -> list[bytes]:
    """Return the images of a folder packed at 256 px."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "packed"
        pack(open_dataset(folder), path, PackSettings(resize=PACKED_SIDE), name="benchmark")
        examples = open_dataset(path).everything()
        return [bytes(examples.read(index)) for index in range(len(examples))]


def main() -> None:
    """Measure and record."""
    parser = options(__doc__)
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    args = parser.parse_args()
    everything = open_dataset(args.folder).everything()
    files = [bytes(everything.read(index)) for index in range(len(everything))]
    originals = in_memory(files * max(1, NUM_IMAGES // len(files)))
    large = in_memory(enlarged(files[:NUM_LARGE]))
    small = in_memory(packed(args.folder) * max(1, NUM_IMAGES // len(files)))
    rows: list[dict[str, Any]] = []
    for workers in args.workers:
        originals_epoch = ours(originals, workers)
        large_scaled = ours(large, workers, scaled=True)
        cases = [
            ("originals", "bare decoding", originals, originals_epoch, bare(originals, workers)),
            ("originals", "Pillow", originals, originals_epoch, pillow(originals, workers)),
            ("12 megapixels", "Pillow", large, ours(large, workers), pillow(large, workers)),
            ("12 megapixels, scaled", "Pillow", large, large_scaled, pillow(large, workers)),
            ("packed", "our originals", small, ours(small, workers), originals_epoch),
        ]
        for images, peer, examples, load, theirs in cases:
            measured = compare(load, theirs, rounds=args.rounds, device=torch.device("cpu"))
            facts = {"images": images, "peer": peer, "size": SIZE, "workers": workers}
            rate = len(examples) / measured["ours_seconds"]
            rows.append({**facts, "our_images_per_second": rate, **measured})
    record("loader_speed", rows, args=args)


if __name__ == "__main__":
    main()
