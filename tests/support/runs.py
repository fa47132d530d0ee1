"""Small data and small runs shared by many tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TINY_MODEL: dict[str, Any] = {
    "model.embed_dim": 16,
    "model.depth": 2,
    "model.num_heads": 2,
    "model.mlp_dim": 32,
    "model.image_size": 8,
}


def pattern_images(count: int, *, seed: int = 0, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, side, side) of four bar patterns with noise, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.integers(0, 100, (count, side, side))
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        rows, columns = [(0, half), (half, side), (0, side), (0, side)][label], [
            (0, side), (0, side), (0, half), (half, side)][label]  # fmt: skip
        image[slice(*rows), slice(*columns)] += 120
    return images.astype(np.uint8), labels.astype(np.int64)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return random pixels (height, width, channels)."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def photograph(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return a smooth image with an edge, which resizes like a photograph."""
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    waves = np.sin(x / 9 + c) * np.cos(y / 7 - c) * 100 + 128
    return np.where(x > y, waves, 255 - waves).astype(np.uint8)


@contextmanager
def stopped_at(step: int) -> Iterator[None]:
    """Expect a training inside to be interrupted when it would start a step."""
    from vitral.training.loop import StepRunner

    start = StepRunner.start

    def stop(runner: StepRunner, step_batches: Any, **options: Any) -> Any:
        if step_batches.plan.step == step:
            raise KeyboardInterrupt
        return start(runner, step_batches, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StepRunner, "start", stop)
        yield


def run_steps(state: Any, batches: Any, *, config: Any, machine: Any) -> list[Any]:
    """Train a state to the end of its run, and return the measurements of each step."""
    from vitral.training.loop import StepRunner
    from vitral.training.parallel import parallelise

    forward = parallelise(state.objective, machine)
    runner = StepRunner(state, forward, batches, config=config, machine=machine)
    state.objective.train()
    steps = batches.steps(state.step, config.train.steps)
    return [runner.read(runner.start(step_batches)) for step_batches in steps]


def write_patterns(
    path: Path, *, counts: tuple[int, int, int] = (80, 20, 20), seed: int = 0
) -> Path:
    """Write an .npz of patterns with train, validation and test splits."""
    images, labels = pattern_images(sum(counts), seed=seed)
    names = ("train", "validation", "test")
    split = np.repeat(names, counts)
    np.savez(path, images=images, labels=labels, split=split, classes=np.array(list("abcd")))
    return path
