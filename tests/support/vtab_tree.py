"""A tiny VTAB-1k tree of noise images in the community's format."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from vitral.data.datasets.table import TASKS

NUM_VALIDATION, NUM_TEST = 3, 4


def write_vtab_tree(root: Path, tasks: Iterable[str] = TASKS, *, side: int = 16) -> Path:
    """Write tasks, each with a training image of every class, and few others.

    Of Sun397, as in truth, not every class is among the first 800.
    """
    for number, name in enumerate(tasks):
        task = TASKS[name]
        folder = root / "vtab-1k" / task.tree[0]
        generator = np.random.default_rng(number)
        counts = {"train800": task.num_classes, "val200": NUM_VALIDATION, "test": NUM_TEST}
        lists = {
            part: [
                _write(folder, part, n, n % task.num_classes, generator, side) for n in range(count)
            ]
            for part, count in counts.items()
        }
        if name == "sun397":
            lists["val200"].append(lists["train800"].pop())
        lists["train800val200"] = lists["train800"] + lists["val200"]
        for part, lines in lists.items():
            (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return root


def _write(
    folder: Path, part: str, number: int, label: int, generator: np.random.Generator, side: int
) -> str:
    """Write an image and return its line for the list."""
    name = f"images/{part}/{number:06}.jpg"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=75)
    return f"{name} {label}"
