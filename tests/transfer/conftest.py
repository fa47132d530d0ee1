"""A small model trained on one set of patterns, and other patterns that it has not seen."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import TINY_MODEL, pattern_images

import vitral

# Tiny products are faster on one thread; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
CLASSES = np.array(["left", "top", "right"])


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt four patterns, with a `pre_logits` layer."""
    folder = tmp_path_factory.mktemp("pretrained")
    images, labels = pattern_images(160)
    np.savez(folder / "patterns.npz", images=images, labels=labels)
    plain = {"augment.flip": False, "augment.crop": "none", "augment.mixup": 0.0}
    result = vitral.train(
        "ViT-Mi/4",
        str(folder / "patterns.npz"),
        epochs=25,
        batch_size=16,
        learning_rate=5e-3,
        output=folder / "run",
        settings=TINY_MODEL | plain | {"model.representation_size": 16},
        quiet=True,
    )
    return result.path


@pytest.fixture(scope="session")
def write_task(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write three of the patterns, in another order, with as many images of each split."""

    def write(*, validation: int = 0, test: int = 24, train: int = 48, **additional: Any) -> Path:
        count = train + validation + test
        images, labels = pattern_images(2 * count, seed=7)
        few = np.flatnonzero(labels < 3)[:count]
        split = np.repeat(["train", "validation", "test"], [train, validation, test])
        path = tmp_path_factory.mktemp("task") / "task.npz"
        arrays = {"images": images[few], "labels": 2 - labels[few], "split": split}
        np.savez(path, classes=CLASSES, **arrays | additional)
        return path

    return write
