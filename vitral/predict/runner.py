"""A model made ready for images: loaded, on its device, with its precision and preprocessing."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.config.preprocessing import Preprocessing, change_preprocessing, describe_change
from vitral.data.decode import UnreadableImageError, UnsupportedImageError
from vitral.data.examples import Examples
from vitral.data.loader import evaluation_batches
from vitral.data.sources.arrays import as_pixels
from vitral.data.sources.store import Content
from vitral.data.transforms import preprocess
from vitral.data.workers import Batch, decode
from vitral.errors import DataError, RequestError
from vitral.evaluate.forward import forward_batches
from vitral.models.model import Model
from vitral.models.weights.load import load_model
from vitral.predict.backends import Backend
from vitral.predict.backends.torch_eager import TorchBackend
from vitral.runtime.device import choose_device, choose_precision


@dataclass(frozen=True)
class ModelRunner:
    """A model in evaluation mode, and how it is run."""

    model: Model
    device: torch.device
    precision: torch.dtype
    preprocessing: Preprocessing

    def backend(self, apply: Callable[[Tensor], Tensor]) -> Backend:
        """Return what runs the model, or a method of it: images (N, C, H, W) to (N, ...)."""
        return TorchBackend(
            apply, device=self.device, precision=self.precision, preprocessing=self.preprocessing
        )

    def prepare(self, image: Any) -> np.ndarray:
        """Return an image as the model is given it, before it is brought into range.

        Args:
            image: a path, a file's bytes, an array (H, W) or (H, W, C) uint8, or a PIL image.

        Returns:
            (C, H, W) in 0..255: uint8, or float32 where the preprocessing does not round.

        Raises:
            DataError: it can't be read.
        """
        channels = self.model.config.in_channels
        content = image
        if not isinstance(image, bytes):
            content = given_examples([image], channels=channels).read(0)
        try:
            pixels = decode(content, channels=channels)
        except (UnreadableImageError, UnsupportedImageError) as error:
            raise DataError(f"the image can't be read: {error}") from None
        return np.ascontiguousarray(preprocess(pixels, self.preprocessing).transpose(2, 0, 1))

    def outputs(
        self,
        backend: Backend,
        images: Sequence[Any],
        *,
        batch_size: int,
        errors: dict[int, str],
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Give batches of images as they were loaded, and what the model makes of them.

        Args:
            backend: from `backend`.
            images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
            batch_size: images at once.
            errors: gets, by place in `images`, why one could not be read.
        """
        batches = evaluation_batches(
            given_examples(images, channels=self.model.config.in_channels),
            preprocessing=self.preprocessing,
            batch_size=batch_size,
            errors=errors,
        )

        def apply(batch: Batch) -> dict[str, Tensor]:
            return {"outputs": backend(batch["image"])}

        for loaded, found in forward_batches(apply, batches, device=backend.device):
            yield loaded, found["outputs"]


def open_runner(
    model: str | Path | Model,
    *,
    device: str = "auto",
    precision: str = "auto",
    format: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    check: Callable[[Model, object], None] | None = None,
) -> ModelRunner:
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
    return ModelRunner(loaded, chosen, chosen_precision, changed)


def check_batch_size(batch_size: int) -> None:
    """Make sure that there is something in a batch.

    Raises:
        RequestError: there is not.
    """
    if batch_size < 1:
        raise RequestError(f"batch_size={batch_size} must be 1 or more")


def given_examples(images: Sequence[Any], *, channels: int) -> Examples:
    """Return images as examples of label 0, named by path, or by their place for arrays.

    Args:
        images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
        channels: of the model.
    """
    count = len(images)
    store = _GivenImages(images, channels=channels)
    return Examples(store, np.arange(count), np.zeros(count, np.int64))


def given_names(images: Sequence[Any]) -> list[str]:
    """Return the paths of images, or for arrays their places."""
    return [
        os.fspath(image) if isinstance(image, str | os.PathLike) else str(number)
        for number, image in enumerate(images)
    ]


class _GivenImages:
    """Images that a caller gave, as a store."""

    def __init__(self, images: Sequence[Any], *, channels: int) -> None:
        self._images = images
        self._channels = channels
        self.names: Sequence[str] = given_names(images)

    def read(self, number: int) -> Content:
        """Return a file's bytes, or pixels."""
        image = self._images[number]
        if not isinstance(image, str | os.PathLike):
            return as_pixels(image, channels=self._channels)
        try:
            return Path(image).read_bytes()
        except FileNotFoundError:
            raise DataError("there is no such file") from None
        except OSError as error:
            raise DataError(f"can't be read: {error.strerror or error}") from None

    def stamp(self, number: int) -> str | None:
        """Nothing is cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Each image is read by itself."""
        return None
