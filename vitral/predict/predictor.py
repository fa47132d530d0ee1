"""Class names and probabilities for images, from a model that says itself what it must be fed."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitral.data.batches import to_model
from vitral.data.images import Examples
from vitral.data.loader import evaluation_batches
from vitral.data.stores.arrays import as_pixels
from vitral.data.stores.store import Content
from vitral.errors import DataError, RequestError
from vitral.models.model import Model, check_classifier
from vitral.models.weights.load import load_model
from vitral.runtime.device import autocast, choose_device, choose_precision
from vitral.spec.preprocessing import change_preprocessing, describe_change


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    path: str
    """The file, or the place in the input for arrays."""
    top: tuple[tuple[str, float], ...]
    """Class names with probabilities, most probable first; empty when the image has an error."""
    error: str = ""
    """Why the image could not be read."""

    @property
    def class_name(self) -> str:
        """The most probable class; empty when the image has an error."""
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float | None:
        """Its probability."""
        return self.top[0][1] if self.top else None

    def as_row(self) -> dict[str, Any]:
        """Return plain data: `path`, `class`, `probability`, `top`, `error`."""
        return {
            "path": self.path,
            "class": self.class_name,
            "probability": self.probability,
            "top": [{"class": name, "probability": share} for name, share in self.top],
            "error": self.error,
        }


class Predictor:
    """A loaded model: call it with images.

    >>> predictor = Predictor("runs/birds")                          # doctest: +SKIP
    >>> predictor(["a.jpg", array, pil_image])[0].class_name         # doctest: +SKIP
    'robin'
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 64,
        top: int = 5,
        format: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: a run folder, a model folder or file, or a loaded model.
            device: "auto", "cpu", "cuda" or "mps".
            precision: "auto", "float32" or "bfloat16".
            batch_size: images at once.
            top: how many classes a prediction names.
            format: read the model's file as this format, where its content does not tell.
            preprocessing: fields of `model.preprocessing` that shall differ, such as
                {"crop_share": 1.0}; both are then printed. None: the model's own.

        Raises:
            RequestError: nothing is there, or a bad value.
            ModelFileError: it can't be used, or has no head.
        """
        if batch_size < 1 or top < 1:
            raise RequestError(f"batch_size={batch_size} and top={top} must be 1 or more")
        self.device = choose_device(device)
        loaded = model if isinstance(model, Model) else load_model(model, format=format)
        config = loaded.config
        check_classifier(loaded, config.name if isinstance(model, Model) else model)
        self.model = loaded.to(self.device).eval()
        self._precision = choose_precision(precision, device=self.device, width=config.feature_dim)
        self.preprocessing = loaded.preprocessing
        if preprocessing:
            self.preprocessing = change_preprocessing(loaded.preprocessing, preprocessing)
            change = describe_change(loaded.preprocessing, self.preprocessing)
            print(f"note: {change}", file=sys.stderr)
        self._batch_size, self._top = batch_size, min(top, config.num_classes)
        names = [str(number) for number in range(config.num_classes)]
        self.classes = self.model.classes or tuple(names)

    def __call__(self, images: Sequence[Any] | Any) -> list[Prediction]:
        """Predict for images.

        Args:
            images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images; one or a sequence of
                them.

        Returns:
            One prediction an image, in order; an image that can't be read has an `error`.
        """
        if isinstance(images, str | os.PathLike) or not isinstance(images, Sequence):
            images = [images]
        return list(self.predict(images))

    @torch.no_grad()
    def predict(self, images: Sequence[Any]) -> Iterator[Prediction]:
        """Give the predictions one by one; memory does not grow with the number of images."""
        store = _GivenImages(images, channels=self.model.config.in_channels)
        count = len(images)
        examples = Examples(store, np.arange(count), np.zeros(count, np.int64))
        errors: dict[int, str] = {}
        for loaded in evaluation_batches(
            examples,
            preprocessing=self.preprocessing,
            batch_size=self._batch_size,
            errors=errors,
        ):
            batch = to_model(loaded, device=self.device, preprocessing=self.preprocessing)
            with autocast(self.device, self._precision):
                logits = self.model(batch["image"]).float()
            shares = (
                logits.sigmoid() if self.model.objective == "sigmoid" else logits.softmax(dim=1)
            )
            values, places = shares.topk(self._top, dim=1)
            for index, own_values, own_places in zip(
                loaded["index"].tolist(), values.tolist(), places.tolist(), strict=True
            ):
                error = errors.pop(index, "")
                named = zip((self.classes[place] for place in own_places), own_values, strict=True)
                yield Prediction(store.names[index], () if error else tuple(named), error)


class _GivenImages:
    """Images that a caller gave, as a store."""

    def __init__(self, images: Sequence[Any], *, channels: int) -> None:
        self._images = images
        self._channels = channels
        self.names: Sequence[str] = [
            os.fspath(image) if isinstance(image, str | os.PathLike) else str(number)
            for number, image in enumerate(images)
        ]

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
