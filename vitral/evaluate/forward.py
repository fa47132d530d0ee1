"""The forward loop over examples that all scoring uses, and the model that goes through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitral.config.preprocessing import change_preprocessing
from vitral.data.device_transforms import prefetch_batches, prepare_on_device
from vitral.data.loader import evaluation_batches
from vitral.data.needs import CLASSIFICATION, Needs
from vitral.data.workers import Batch
from vitral.errors import RequestError
from vitral.models.model import Model
from vitral.runtime.device import autocast, choose_device, choose_precision

if TYPE_CHECKING:
    import numpy as np

    from vitral.config.preprocessing import Preprocessing
    from vitral.data.examples import Examples

Apply = Callable[[Batch], Mapping[str, Tensor]]
"""Maps a batch as it was loaded, on the device, to named outputs (N, ...)."""


@torch.no_grad()
def forward_batches(
    apply: Apply, batches: Generator[Batch, None, None], *, device: torch.device
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Yield each batch as it was loaded with the outputs of `apply` for it, on the CPU.

    On CUDA the next batch is copied to the device and computed while the caller uses the last
    outputs.

    Args:
        apply: called without gradients.
        batches: as loaded; closed together with this generator.
        device: where `apply` computes.
    """
    pending: tuple[Batch, Callable[[], dict[str, Tensor]]] | None = None
    with contextlib.closing(prefetch_batches(batches, device=device)) as prefetched:
        for loaded, moved in prefetched:
            fetch = _fetch(apply(moved))
            if pending:  # a GPU computes the next batch while this one is used
                yield pending[0], pending[1]()
            pending = (loaded, fetch)
    if pending:
        yield pending[0], pending[1]()


def with_preparation(
    function: Apply, *, device: torch.device, preprocessing: Preprocessing, precision: torch.dtype
) -> Apply:
    """Wrap a function so that it takes batches as loaded, and prepares them first.

    Args:
        function: takes a batch whose images are floats in the model's range, on the device.
        device: where the model is.
        preprocessing: of the model.
        precision: of the matrix products.
    """

    def apply(batch: Batch) -> Mapping[str, Tensor]:
        ready = prepare_on_device(batch, device=device, preprocessing=preprocessing)
        with autocast(device, precision):
            return function(ready)

    return apply


def forward_examples(
    function: Apply,
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    errors: dict[int, str],
    workers: int = -1,
    indices: np.ndarray | None = None,
    needs: Needs = CLASSIFICATION,
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Yield each batch of examples as it was loaded, with what a function makes of it.

    Args:
        function: takes a batch whose images are floats in the model's range, on the device.
        examples: any number; memory holds a few batches.
        preprocessing: of the model.
        batch_size: the last batch may be smaller.
        device: where the model is.
        precision: of the matrix products.
        errors: receives by index why an image could not be read; the model then sees zeros.
        workers: decoding threads; -1: by the number of cores.
        indices: some of the examples, such as those of one process; None: all, in order.
        needs: what a batch holds besides its images.

    Returns:
        Batches with the function's outputs, floats as float32, on the CPU.
    """
    batches = evaluation_batches(
        examples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        errors=errors,
        workers=workers,
        indices=indices,
        needs=needs,
    )
    apply = with_preparation(
        function, device=device, preprocessing=preprocessing, precision=precision
    )
    yield from forward_batches(apply, batches, device=device)


def model_outputs(
    apply: Callable[[Tensor], Tensor], examples: Examples, **options: Any
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield batches of examples, each with the outputs of a model.

    Args:
        apply: a model in evaluation mode or a method of one: images (N, C, H, W) to (N, ...).
        examples: any number; memory holds a few batches.
        options: of `forward_examples`.
    """

    def function(batch: Batch) -> dict[str, Tensor]:
        return {"outputs": apply(batch["image"])}

    for loaded, outputs in forward_examples(function, examples, **options):
        yield loaded, outputs["outputs"]


@dataclass(frozen=True)
class ReadyModel:
    """A model in evaluation mode, and the settings it runs with."""

    model: Model
    device: torch.device
    precision: torch.dtype
    preprocessing: Preprocessing


def load_ready(
    model: str | Path | Model,
    *,
    device: str = "auto",
    precision: str = "auto",
    format: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    check: Callable[[Model, object], None] | None = None,
    **fields: Any,
) -> ReadyModel:
    """Load a model and choose the settings it runs with.

    Args:
        model: a run folder, a model folder or file, a name of the catalogue, or a loaded model.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "float32" or "bfloat16".
        format: format of the model's file, if it can't be detected from the content.
        preprocessing: fields of `model.preprocessing` to override.
        check: called with the model and its name before anything else is done with it.
        fields: of the config of a model that is loaded, such as `image_size`.

    Raises:
        RequestError: nothing is there, or a bad value.
        ModelFileError: it can't be used.
    """
    from vitral.models.weights.load import load_model  # of all formats, for those who load

    chosen_device = choose_device(device)
    loaded = load_model(model, format=format, **fields) if isinstance(model, str | Path) else model
    if not isinstance(loaded, Model):
        raise RequestError(
            f"a model of type {type(loaded).__name__}: give a path, a name, or a model of "
            "vitral.create_model or vitral.load_model"
        )
    if check:
        check(loaded, model if isinstance(model, str | Path) else loaded.config.name)
    return ReadyModel(
        loaded.to(chosen_device).eval(),
        chosen_device,
        choose_precision(precision, device=chosen_device, width=loaded.config.feature_dim),
        change_preprocessing(loaded.preprocessing, preprocessing or {}),
    )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _fetch(outputs: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Start copying outputs to the CPU, floats as float32; return a function that waits for it."""
    ready = {
        name: value.float() if value.is_floating_point() else value
        for name, value in outputs.items()
    }
    if not any(value.device.type == "cuda" for value in ready.values()):
        on_cpu = {name: value.cpu() for name, value in ready.items()}
        return lambda: on_cpu
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
