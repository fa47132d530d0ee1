"""Take the built-in data set from the publisher's Fashion-MNIST files.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb unpacked
    python scripts/build_fashion_mnist.py unpacked/usr/share/datasets/fashion-mnist

Takes the first 1,000 training and the first 200 test images of each class, in the publisher's
order, so that anybody can make the same file again.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
OUTPUT_PATH = Path(__file__).parent.parent / "vitral/data/builtin/fashion_mnist.npz"
IDX_IMAGES_HEADER_BYTES, IDX_LABELS_HEADER_BYTES = 16, 8


def read_publisher_files(folder: Path, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, 28, 28) and labels (N,) of the publisher's IDX files, both uint8."""
    images = gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=IDX_IMAGES_HEADER_BYTES).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=IDX_LABELS_HEADER_BYTES),
    )


def first_of_each_class(labels: np.ndarray, *, count: int) -> np.ndarray:
    """Return the sorted indices of the first `count` examples of each class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:count] for k in range(10)]))


def main() -> None:
    """Write the built-in data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the publisher's four .gz files are")
    folder = parser.parse_args().folder
    parts = []
    for split, name, count in (("train", "train", 1000), ("test", "t10k", 200)):
        images, labels = read_publisher_files(folder, name=name)
        chosen = first_of_each_class(labels, count=count)
        parts.append((images[chosen], labels[chosen].astype(np.int64), [split] * len(chosen)))
    images, labels, split = (np.concatenate(column) for column in zip(*parts, strict=True))
    np.savez_compressed(
        OUTPUT_PATH, images=images, labels=labels, split=split, classes=np.array(CLASSES)
    )
    print(f"{OUTPUT_PATH}: {len(images)} images, {OUTPUT_PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
