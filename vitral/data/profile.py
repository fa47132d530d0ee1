"""The time that each stage of loading takes, which one is the slowest, and what would help."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitral.data.jpeg import Scratch, decode_whole
from vitral.data.order import uniforms
from vitral.data.pack_shard import is_shrunk, shrink
from vitral.data.scan import inspect_content
from vitral.data.transforms import augment, decode_with_geometry, num_uniforms
from vitral.data.workers import decode
from vitral.errors import DataError

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.config.run import AugmentSettings, DataSettings
    from vitral.data.examples import Examples
    from vitral.data.sources.store import Content

WAIT_SHARE = 0.2
"""Share of the time that a training may wait for data before advice is given."""
_SAMPLE, _SECONDS, _ROUNDS = 64, 1.0, 3
_WORTH = 1.15
"""Gain from which advice is given."""


@dataclass(frozen=True)
class LoadingProfile:
    """Seconds that an image takes in each stage, on one thread; medians over a sample."""

    read: float
    decode: float
    augment: float
    """Cropping, resizing and changes."""
    collate: float
    bare: float
    """Decoding a JPEG whole by libjpeg-turbo and nothing else; of other images `decode`."""
    scaled: float
    """Decoding, with scaled decoding."""
    packed: float
    """Decoding, after `vitral data pack --resize`."""
    num_bytes: int
    """Of a file, the mean."""
    num_pixels: int
    """Of an image, the mean."""

    @property
    def total(self) -> float:
        """Seconds from the file to the batch."""
        return self.read + self.decode + self.augment + self.collate

    @property
    def slowest(self) -> str:
        """The stage that takes longest."""
        return max(("read", "decode", "augment", "collate"), key=lambda name: getattr(self, name))


@dataclass(frozen=True)
class Advice:
    """Something that would make loading faster."""

    what: str
    gain: float
    """Predicted factor by which images per second grow."""


def profile_loading(
    examples: Examples, *, preprocessing: Preprocessing, settings: AugmentSettings
) -> LoadingProfile:
    """Measure a sample of images, spread evenly over a split.

    Raises:
        DataError: none of them can be read.
    """
    spread = np.linspace(0, len(examples) - 1, min(_SAMPLE, len(examples))).astype(int)
    started = time.perf_counter()
    contents = [
        content for index in spread.tolist() if (content := _read(examples, index)) is not None
    ]
    read = (time.perf_counter() - started) / len(spread)
    scratch, channels = Scratch(), preprocessing.channels
    contents = _decodable(contents, channels=channels)
    if not contents:
        raise DataError("no image of the sample can be read: see `vitral data check`")
    count = num_uniforms(settings)
    numbers = uniforms(0, 0, np.arange(len(contents)), count=count)
    pixels = [np.array(decode(content, channels=channels)) for content in contents]

    def change(image: np.ndarray, row: np.ndarray) -> np.ndarray:
        return augment(image, row, settings=settings, preprocessing=preprocessing)

    def decode_scaled(content: Content, row: np.ndarray) -> np.ndarray:
        pixels, _ = decode_with_geometry(
            content,
            row,
            settings=settings,
            preprocessing=preprocessing,
            scaled=True,
            scratch=scratch,
        )
        return pixels

    def decode_bare(content: Content, _: np.ndarray) -> np.ndarray:
        whole = decode_whole(content) if isinstance(content, bytes) else content
        return decode(content, channels=channels) if whole is None else whole

    def decode_own(content: Content, _: np.ndarray) -> np.ndarray:
        return decode(content, channels=channels, scratch=scratch)

    changed = [change(image, row) for image, row in zip(pixels, numbers, strict=True)]
    packed = [_packed(content, preprocessing) for content in contents]
    seconds = _seconds_each
    return LoadingProfile(
        read=read,
        decode=seconds(decode_own, contents, numbers),
        augment=seconds(change, pixels, numbers),
        collate=_collate_seconds(changed),
        bare=seconds(decode_bare, contents, numbers),
        scaled=seconds(decode_scaled, contents, numbers),
        packed=seconds(decode_own, packed, numbers),
        num_bytes=int(np.mean([_size(content) for content in contents])),
        num_pixels=int(np.mean([image.shape[0] * image.shape[1] for image in pixels])),
    )


def advise(
    stages: LoadingProfile, *, data: DataSettings, preprocessing: Preprocessing, fits: bool
) -> list[Advice]:
    """Return what would make loading faster, the largest gain first.

    Args:
        stages: measured.
        data: the settings that loading has now.
        preprocessing: of the model.
        fits: whether all decoded images fit into memory.
    """
    cores = os.cpu_count() or 1
    found = []
    if 0 <= data.workers < cores:
        more = f"use more threads: --set data.workers={cores}"
        found.append(Advice(more, cores / max(data.workers, 1)))
    if fits and data.keep_decoded == "off":
        cached = stages.augment + stages.collate
        found.append(
            Advice("keep decoded images: --set data.keep_decoded=auto", stages.total / cached)
        )
    if not data.scaled_decoding:
        scaled = stages.total - stages.decode + stages.scaled
        found.append(
            Advice(
                "decode large JPEGs smaller: --set data.scaled_decoding=true", stages.total / scaled
            )
        )
    small = stages.total - stages.decode + stages.packed
    pack = f"train on smaller images: `vitral data pack --resize {pack_side(preprocessing)}`"
    found.append(Advice(pack, stages.total / small))
    if stages.slowest == "read":
        local = stages.total - stages.read
        found.append(Advice("copy the data to a disk of this machine", stages.total / local))
    return sorted((item for item in found if item.gain >= _WORTH), key=lambda item: -item.gain)


def describe_advice(stages: LoadingProfile, advice: Sequence[Advice]) -> list[str]:
    """Describe the slowest stage, and what would make loading faster with which gain."""
    names = {
        "read": "reading", "decode": "decoding", "augment": "cropping and resizing",
        "collate": "collecting",
    }  # fmt: skip
    slowest = getattr(stages, stages.slowest)
    lines = [
        f"{names[stages.slowest]} takes most: {1000 * slowest:.2f} of {1000 * stages.total:.2f} ms "
        "an image on one thread"
    ]
    if not advice:
        return [*lines, "nothing cheap would make it faster: use a machine of more cores"]
    return [*lines, *(f"{item.what} ({item.gain:.1f} times as fast, predicted)" for item in advice)]


def pack_side(preprocessing: Preprocessing) -> int:
    """Return the shorter side that is enough for a model's crops: 256 for 224, in steps of 16."""
    return math.ceil(max(preprocessing.size) * 8 / 7 / 16) * 16


def _read(examples: Examples, index: int) -> Content | None:
    try:
        return examples.read(index)
    except (OSError, DataError):
        return None


def _decodable(contents: Sequence[Content], *, channels: int) -> list[Content]:
    """Return what can be decoded, and of large photos no more than take a second."""
    found: list[Content] = []
    started = time.perf_counter()
    for content in contents:
        if not inspect_content(content, channels=channels).problem:
            found.append(content)
        if time.perf_counter() - started > _SECONDS:
            break
    return found


def _packed(content: Content, preprocessing: Preprocessing) -> Content:
    """Return an image as `vitral data pack --resize` would store it."""
    side = pack_side(preprocessing)
    file_info = inspect_content(content, channels=preprocessing.channels)
    if isinstance(content, bytes) and is_shrunk(file_info, shorter=side):
        return shrink(content, file_info, shorter=side, quality=90)
    return content


def _seconds_each(
    function: Callable[[Any, np.ndarray], Any], values: Sequence[Any], numbers: np.ndarray
) -> float:
    """Return the seconds that a function takes for one of the values: the median of some rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for value, row in zip(values, numbers, strict=True):
            function(value, row)
        rounds.append((time.perf_counter() - started) / len(values))
    return float(np.median(rounds))


def _collate_seconds(images: Sequence[np.ndarray]) -> float:
    rounds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        batch = np.zeros((len(images), *images[0].shape), images[0].dtype)
        for row, image in enumerate(images):
            batch[row] = image
        torch.from_numpy(batch)
        rounds.append((time.perf_counter() - started) / len(images))
    return float(np.median(rounds))


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.nbytes
