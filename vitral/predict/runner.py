"""A model ready to run on images: on its device, with its precision and preprocessing."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitral.config.preprocessing import describe_change
from vitral.data.decode import UnreadableImageError, UnsupportedImageError
from vitral.data.examples import Examples
from vitral.data.loader import evaluation_batches
from vitral.data.sources.arrays import as_pixels
from vitral.data.sources.store import Content
from vitral.data.transforms import preprocess
from vitral.data.workers import Batch, decode
from vitral.errors import DataError, RequestError
from vitral.evaluate.forward import ReadyModel, forward_batches, load_ready
from vitral.models.model import Model
from vitral.predict.backends import Backend
from vitral.predict.backends.torch_eager import TorchBackend


@dataclass(frozen=True)
class ModelRunner(ReadyModel):
    """An opened model that takes images of any kind."""

    def backend(self, apply: Callable[[Tensor], Tensor]) -> Backend:
        """Return a backend of the model or of a method of it: images (N, C, H, W) to (N, ...)."""
        return TorchBackend(
            apply,
            device=self.device,
            precision=self.precision,
            preprocessing=self.preprocessing,
        )

    def prepare(self, image: Any) -> np.ndarray:
        """Return an image as the model takes it, before normalisation.

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
            content = image_examples([image], channels=channels).read(0)
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
        """Yield batches of images as they were loaded, and the outputs for them.

        Args:
            backend: from `backend`.
            images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
            batch_size: images per batch.
            errors: receives by index in `images` why an image could not be read.
        """
        batches = evaluation_batches(
            image_examples(images, channels=self.model.config.in_channels),
            preprocessing=self.preprocessing,
            batch_size=batch_size,
            errors=errors,
        )

        def apply(batch: Batch) -> dict[str, Tensor]:
            return {"outputs": backend(batch["image"])}

        for loaded, found in forward_batches(apply, batches, device=backend.device):
            yield loaded, found["outputs"]


def open_runner(
    model: str | Path | Model, *, preprocessing: Mapping[str, Any] | None = None, **options: Any
) -> ModelRunner:
    """Load a model for prediction.

    Args:
        model: a run folder, a model folder or file, or a loaded model.
        preprocessing: fields of `model.preprocessing` to override; both versions are then printed.
        options: of `load_ready`.

    Raises:
        RequestError: nothing is there, or a bad value.
        ModelFileError: it can't be used.
    """
    opened = load_ready(model, preprocessing=preprocessing, **options)
    if preprocessing:
        change = describe_change(opened.model.preprocessing, opened.preprocessing)
        print(f"note: {change}", file=sys.stderr)
    return ModelRunner(**vars(opened))


def check_batch_size(batch_size: int) -> None:
    """Check that a batch size is positive.

    Raises:
        RequestError: it is not.
    """
    if batch_size < 1:
        raise RequestError(f"batch_size={batch_size} must be 1 or more")


def image_examples(images: Sequence[Any], *, channels: int) -> Examples:
    """Return images as examples of label 0, named by path, or by index for arrays.

    Args:
        images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images.
        channels: of the model.
    """
    count = len(images)
    store = _ImageStore(images, channels=channels)
    return Examples(store, np.arange(count), np.zeros(count, np.int64))


def image_names(images: Sequence[Any]) -> list[str]:
    """Return the paths of images, or for arrays their indices."""
    return [
        os.fspath(image) if isinstance(image, str | os.PathLike) else str(index)
        for index, image in enumerate(images)
    ]


class _ImageStore:
    """A store of the images that a caller gave."""

    def __init__(self, images: Sequence[Any], *, channels: int) -> None:
        self._images = images
        self._channels = channels
        self.names: Sequence[str] = image_names(images)

    def read(self, number: int) -> Content:
        """Return the bytes of a file, or the pixels of an array."""
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
        """Return None: nothing is cached."""
        return None

    def blocks(self) -> np.ndarray | None:
        """Return None: each image is read by itself."""
        return None
