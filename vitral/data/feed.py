"""Batches on their way to a GPU: the next ones are copied while the model computes."""

import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch

from vitral.data.loader import StepBatches
from vitral.data.loading import Batch

Loaded = TypeVar("Loaded")
Moved = TypeVar("Moved")


def feed(
    steps: Generator[StepBatches, None, None], *, device: torch.device
) -> Generator[StepBatches, None, None]:
    """Give steps, on CUDA with their batches on the device.

    A thread pins the next step's batches and copies them in a stream of its own, so that the copy
    and the wait for the loader lie beside the computation of the step before.

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


def feed_batches(
    batches: Generator[Batch, None, None], *, device: torch.device
) -> Generator[tuple[Batch, Batch], None, None]:
    """Give each batch as it was loaded, and on CUDA beside it as it lies on the device.

    Args:
        batches: as loaded; closed with this.
        device: of the model; where it is not CUDA both are the same.
    """
    if device.type != "cuda":
        with contextlib.closing(batches):
            yield from ((batch, batch) for batch in batches)
        return
    with contextlib.closing(_copy_ahead(batches, lambda batch: [batch], device)) as copied:
        for batch, (own,) in copied:
            yield batch, own


def _copy_ahead(
    steps: Generator[Loaded, None, None],
    batches_of: Callable[[Loaded], list[Batch]],
    device: torch.device,
) -> Generator[tuple[Loaded, list[Batch]], None, None]:
    """Give steps with their batches on the device, where the next ones are copied meanwhile."""
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
                for tensor in batch.values():  # its memory is not given away while it is in use
                    tensor.record_stream(torch.cuda.current_stream(device))
            yield step, batches


def one_ahead(
    steps: Generator[Loaded, None, None], move: Callable[[Loaded], Moved]
) -> Generator[Moved, None, None]:
    """Give what `move` makes of each step, working on the next one while the caller uses the last.

    Args:
        steps: used by one thread, and closed at the end.
        move: called in that thread.
    """

    def fetch() -> list[Moved]:
        step = next(steps, None)
        return [] if step is None else [move(step)]

    with contextlib.closing(steps), ThreadPoolExecutor(1, "feed") as pool:
        coming = pool.submit(fetch)
        while moved := coming.result():
            coming = pool.submit(fetch)
            yield moved[0]


def _copied(batch: Batch, device: torch.device) -> Batch:
    return {name: own.pin_memory().to(device, non_blocking=True) for name, own in batch.items()}
