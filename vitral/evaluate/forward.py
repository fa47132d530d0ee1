"""What a model makes of examples, batch by batch: the one forward loop of all who score."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vitral.data.device_transforms import prefetch_batches, prepare_on_device
from vitral.data.loader import evaluation_batches
from vitral.data.workers import Batch
from vitral.runtime.device import autocast

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.examples import Examples

Apply = Callable[[Batch], Mapping[str, Tensor]]
"""From a batch as it was loaded, on the device, to named outputs (N, ...)."""


@torch.no_grad()
def forward_batches(
    apply: Apply, batches: Generator[Batch, None, None], *, device: torch.device
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Yield each batch as it was loaded, and beside it what `apply` makes of it, on the CPU.

    On CUDA the next batch is copied to the device, and computed, while the caller uses the last
    one's outputs.

    Args:
        apply: called without gradients.
        batches: as loaded; closed with this.
        device: where `apply` computes.
    """
    waiting: tuple[Batch, Callable[[], dict[str, Tensor]]] | None = None
    with contextlib.closing(prefetch_batches(batches, device=device)) as fed:
        for loaded, moved in fed:
            fetch = _fetch(apply(moved))
            if waiting:  # a GPU computes the next batch while this one is used
                yield waiting[0], waiting[1]()
            waiting = (loaded, fetch)
    if waiting:
        yield waiting[0], waiting[1]()


def as_model_sees(
    function: Apply, *, device: torch.device, preprocessing: Preprocessing, precision: torch.dtype
) -> Apply:
    """Return a function of loaded batches that calls one of batches in the model's range.

    Args:
        function: of a batch whose images are floats on the device, as in training.
        device: where the model is.
        preprocessing: of the model.
        precision: of the matrix products.
    """

    def apply(batch: Batch) -> Mapping[str, Tensor]:
        ready = prepare_on_device(batch, device=device, preprocessing=preprocessing)
        with autocast(device, precision):
            return function(ready)

    return apply


def model_outputs(
    apply: Callable[[Tensor], Tensor],
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    errors: dict[int, str],
    workers: int = -1,
) -> Iterator[tuple[Batch, Tensor]]:
    """Give, for every example once and in order, what a model makes of it.

    Args:
        apply: a model in evaluation mode or a method of one: images (N, C, H, W) to (N, ...).
        examples: of any number; memory holds a few batches.
        preprocessing: of the model.
        batch_size: the last batch may be smaller.
        device: where the model is.
        precision: of the matrix products.
        errors: gets, by index, why an image could not be read; it is then 0 to the model.
        workers: threads that decode; -1: by the number of cores.

    Returns:
        Batches as they were loaded, and beside each what `apply` gave, float32 on the CPU.
    """
    batches = evaluation_batches(
        examples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        errors=errors,
        workers=workers,
    )
    seen = as_model_sees(
        lambda batch: {"outputs": apply(batch["image"])},
        device=device,
        preprocessing=preprocessing,
        precision=precision,
    )
    for loaded, outputs in forward_batches(seen, batches, device=device):
        yield loaded, outputs["outputs"]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _fetch(outputs: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Begin to copy outputs to the CPU, floats as float32; return what waits for them."""
    ready = {
        name: value.float() if value.is_floating_point() else value
        for name, value in outputs.items()
    }
    if not any(value.device.type == "cuda" for value in ready.values()):
        here = {name: value.cpu() for name, value in ready.items()}
        return lambda: here
    pinned = {
        name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        for name, value in ready.items()
    }
    for name, value in ready.items():
        pinned[name].copy_(value, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(next(iter(ready.values())).device))

    def wait() -> dict[str, Tensor]:
        event.synchronize()
        return pinned

    return wait
