"""What a model makes of examples, batch by batch."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from vitral.data.batches import to_model
from vitral.data.feed import feed_batches
from vitral.data.images import Examples
from vitral.data.loader import evaluation_batches
from vitral.data.loading import Batch
from vitral.runtime.device import autocast
from vitral.spec.preprocessing import Preprocessing


@torch.no_grad()
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
    waiting: tuple[Batch, Callable[[], Tensor]] | None = None
    with contextlib.closing(feed_batches(batches, device=device)) as fed:
        for loaded, moved in fed:
            ready = to_model(moved, device=device, preprocessing=preprocessing)
            with autocast(device, precision):
                outputs = apply(ready["image"])
            fetch = _fetch(outputs.float())
            if waiting:  # a GPU computes the next batch while this one is used
                yield waiting[0], waiting[1]()
            waiting = (loaded, fetch)
    if waiting:
        yield waiting[0], waiting[1]()


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


def _fetch(outputs: Tensor) -> Callable[[], Tensor]:
    """Begin to copy outputs to the CPU; return what waits for them."""
    if outputs.device.type != "cuda":
        here = outputs.cpu()
        return lambda: here
    pinned = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=True)
    pinned.copy_(outputs, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(outputs.device))

    def wait() -> Tensor:
        event.synchronize()
        return pinned

    return wait
