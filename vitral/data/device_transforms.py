"""Transforms of a batch on the device: mirroring, normalising, mixing in pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitral.data.transforms import normalise

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.loader import StepBatches
    from vitral.data.workers import Batch


def prepare_on_device(batch: Batch, *, device: torch.device, preprocessing: Preprocessing) -> Batch:
    """Move a loaded batch to the device and apply `TRANSFORMS` to it.

    Returns:
        The batch with its images as floats in the model's range; with mixup also `mix_label`, the
        label of the image that was mixed in.
    """
    batch = {name: _move(tensor, device) for name, tensor in batch.items()}
    for transform in TRANSFORMS:
        batch = transform(batch, preprocessing)
    return batch


def mirror(batch: Batch, _: Preprocessing) -> Batch:
    """Mirror the images that `flip` marks left to right, each view separately."""
    flipped = {name: name.replace("image", "flip") for name in _images_of(batch)}
    mirrored_images = {
        name: flip_left_right(batch[name], batch[flip])
        for name, flip in flipped.items()
        if flip in batch
    }
    return {
        name: mirrored_images.get(name, tensor)
        for name, tensor in batch.items()
        if name not in flipped.values()
    }


def to_range(batch: Batch, preprocessing: Preprocessing) -> Batch:
    """Bring images of 0..255 into the model's range."""
    return batch | {name: normalise(batch[name], preprocessing) for name in _images_of(batch)}


def mix(batch: Batch, _: Preprocessing) -> Batch:
    """Mix the images of each pair 2k, 2k + 1 by `mix_share`, or fill `mix_box` from the other."""
    if "mix_share" not in batch:
        return batch
    share = batch["mix_share"].view(-1, 1, 1, 1)
    partner = partner_of(len(share), device=share.device)
    images, others = batch["image"], batch["image"][partner]
    if "mix_box" in batch:
        inside = _inside(batch["mix_box"], height=images.shape[2], width=images.shape[3])
        is_cut = inside.flatten(1).any(dim=1).view(-1, 1, 1, 1)
        images, share = torch.where(inside, others, images), share.masked_fill(is_cut, 1.0)
    mixed = share * images + (1 - share) * others
    return batch | {"image": mixed, "mix_label": batch["label"][partner]}


TRANSFORMS: tuple[Callable[[Batch, Preprocessing], Batch], ...] = (mirror, to_range, mix)
"""Applied to a batch on the device, in this order; each reads the entries that it needs."""


def flip_left_right(images: Tensor, flip: Tensor) -> Tensor:
    """Return images (N, C, H, W), mirrored left to right where `flip` (N,) bool is true."""
    if images.device.type != "cpu":
        return torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    # By NumPy, which would have to wait for the device elsewhere. Torch wakes a thread on every
    # core for each image; these compete with the threads that load, which costs a fifth.
    rows = images.numpy()
    result = rows.copy("K")
    for row in np.flatnonzero(flip.numpy()):
        # By channel: whole pixels take three times as long.
        for channel, mirrored in zip(rows[row], result[row], strict=True):
            mirrored[:] = channel[:, ::-1]
    return torch.from_numpy(result)


def to_multi_hot(labels: Tensor, *, num_classes: int) -> Tensor:
    """Return labels as floats of 0 and 1 (N, K), from class numbers (N,) or multi-hot (N, K)."""
    if labels.ndim == 2:
        return labels.float()
    return F.one_hot(labels, num_classes).float()


def _inside(boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Return which pixels (N, 1, H, W) lie in boxes (N, 4) of top, left, bottom, right."""
    top, left, bottom, right = boxes.view(-1, 4, 1, 1).unbind(1)
    y = torch.arange(height, device=boxes.device).view(1, -1, 1)
    x = torch.arange(width, device=boxes.device).view(1, 1, -1)
    return ((y >= top) & (y < bottom) & (x >= left) & (x < right)).unsqueeze(1)


def partner_of(count: int, *, device: torch.device) -> Tensor:
    """Return each position's partner: 2k and 2k + 1 pair up, an odd last one stays by itself."""
    partner = torch.arange(count, device=device) ^ 1
    return partner.clamp(max=count - 1)


def _images_of(batch: Batch) -> list[str]:
    """Return the names of a batch's images: `image`, or `image/0` and so on."""
    return [name for name in batch if name == "image" or name.startswith("image/")]


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


Loaded = TypeVar("Loaded")
Moved = TypeVar("Moved")


def prefetch(
    steps: Generator[StepBatches, None, None], *, device: torch.device
) -> Generator[StepBatches, None, None]:
    """Yield steps, on CUDA with their batches on the device.

    A thread pins the next step's batches and copies them in a separate stream, so that the copy
    and the wait for the loader overlap with the computation of the step before.

    Args:
        steps: as loaded; closed with this.
        device: of the model.
    """
    if device.type != "cuda":
        yield from steps
        return
    with contextlib.closing(_copy_ahead(steps, lambda s: s.micro_batches, device)) as copied:
        for step, batches in copied:
            yield replace(step, micro_batches=batches)


def prefetch_batches(
    batches: Generator[Batch, None, None], *, device: torch.device
) -> Generator[tuple[Batch, Batch], None, None]:
    """Yield each batch as it was loaded, and the same batch on the device.

    Args:
        batches: as loaded; closed with this.
        device: of the model; where it is not CUDA both are the same.
    """
    if device.type != "cuda":
        with contextlib.closing(batches):
            yield from ((batch, batch) for batch in batches)
        return
    with contextlib.closing(_copy_ahead(batches, lambda batch: [batch], device)) as copied:
        for batch, (moved,) in copied:
            yield batch, moved


def _copy_ahead(
    steps: Generator[Loaded, None, None],
    batches_of: Callable[[Loaded], list[Batch]],
    device: torch.device,
) -> Generator[tuple[Loaded, list[Batch]], None, None]:
    """Yield steps with their batches on the device, while the next ones are being copied."""
    stream = torch.cuda.Stream(device)

    def move(step: Loaded) -> tuple[Loaded, list[Batch], torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            batches = [_copied(batch, device) for batch in batches_of(step)]
            event = torch.cuda.Event()
            event.record(stream)
        return step, batches, event

    with contextlib.closing(one_ahead(steps, move)) as moved:
        for step, batches, event in moved:
            event.wait(torch.cuda.current_stream(device))
            for batch in batches:
                for tensor in batch.values():  # its memory is not reused while it is in use
                    tensor.record_stream(torch.cuda.current_stream(device))
            yield step, batches


def one_ahead(
    steps: Generator[Loaded, None, None], move: Callable[[Loaded], Moved]
) -> Generator[Moved, None, None]:
    """Yield the result of `move` for each step, working on the next while the last is in use.

    Args:
        steps: used by one thread, and closed at the end.
        move: called in that thread.
    """

    def fetch() -> list[Moved]:
        step = next(steps, None)
        return [] if step is None else [move(step)]

    with contextlib.closing(steps), ThreadPoolExecutor(1, "feed") as pool:
        pending = pool.submit(fetch)
        while moved := pending.result():
            pending = pool.submit(fetch)
            yield moved[0]


def _copied(batch: Batch, device: torch.device) -> Batch:
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()
    }
