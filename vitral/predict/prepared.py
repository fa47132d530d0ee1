"""A model made ready for images: loaded, on its device, with its precision and preprocessing."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.data.loading import Batch
from vitral.errors import RequestError
from vitral.evaluate.outputs import model_outputs
from vitral.models.model import Model
from vitral.models.weights.load import load_model
from vitral.predict.given import given_examples
from vitral.runtime.device import choose_device, choose_precision
from vitral.spec.preprocessing import Preprocessing, change_preprocessing, describe_change


@dataclass(frozen=True)
class PreparedModel:
    """A model in evaluation mode, and how it is run."""

    model: Model
    device: torch.device
    precision: torch.dtype
    preprocessing: Preprocessing

    def outputs(
        self,
        apply: Callable[[Tensor], Tensor],
        images: Sequence[Any],
        *,
        batch_size: int,
        errors: dict[int, str],
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Give batches of images as they were loaded, and what the model makes of them.

        Args:
            apply: the model, or a method of it: images (N, C, H, W) to (N, ...).
            images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
            batch_size: images at once.
            errors: gets, by place in `images`, why one could not be read.
        """
        return model_outputs(
            apply,
            given_examples(images, channels=self.model.config.in_channels),
            preprocessing=self.preprocessing,
            batch_size=batch_size,
            device=self.device,
            precision=self.precision,
            errors=errors,
        )


def prepare_model(
    model: str | Path | Model,
    *,
    device: str = "auto",
    precision: str = "auto",
    format: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    check: Callable[[Model, object], None] | None = None,
) -> PreparedModel:
    """Load a model and choose how it is run.

    Args:
        model: a run folder, a model folder or file, or a loaded model.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto", "float32" or "bfloat16".
        format: read the model's file as this format, where its content does not tell.
        preprocessing: fields of `model.preprocessing` that shall differ; both are then printed.
        check: called with the model and its name before anything else is done with it.

    Raises:
        RequestError: nothing is there, or a bad value.
        ModelFileError: it can't be used.
    """
    chosen = choose_device(device)
    loaded = model if isinstance(model, Model) else load_model(model, format=format)
    config = loaded.config
    if check:
        check(loaded, config.name if isinstance(model, Model) else model)
    loaded = loaded.to(chosen).eval()
    own = loaded.preprocessing
    changed = change_preprocessing(own, preprocessing) if preprocessing else own
    if preprocessing:
        print(f"note: {describe_change(own, changed)}", file=sys.stderr)
    chosen_precision = choose_precision(precision, device=chosen, width=config.feature_dim)
    return PreparedModel(loaded, chosen, chosen_precision, changed)


def check_batch_size(batch_size: int) -> None:
    """Make sure that there is something in a batch.

    Raises:
        RequestError: there is not.
    """
    if batch_size < 1:
        raise RequestError(f"batch_size={batch_size} must be 1 or more")
