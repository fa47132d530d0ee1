"""Class names and probabilities for images, from a model that knows its preprocessing."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitral.errors import RequestError
from vitral.models.model import Model, check_classifier
from vitral.predict.backends import Backend
from vitral.predict.runner import image_names, open_runner


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for one image."""

    path: str
    """Path of the file; for an array its index in the input."""
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
    """A loaded classifier: call it with images.

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
            batch_size: images per batch.
            top: number of classes in a prediction.
            format: format of the model's file, if it can't be detected from the content.
            preprocessing: fields of `model.preprocessing` to override, such as
                {"crop_share": 1.0}; both versions are then printed. None: the model's own.

        Raises:
            RequestError: nothing is there, or a bad value.
            ModelFileError: it can't be used, or has no head.
        """
        if batch_size < 1 or top < 1:
            raise RequestError(f"batch_size={batch_size} and top={top} must be 1 or more")
        self._runner = open_runner(
            model,
            device=device,
            precision=precision,
            format=format,
            preprocessing=preprocessing,
            check=check_classifier,
        )
        self.model, self.device = self._runner.model, self._runner.device
        self.backend: Backend = self._runner.backend(self.model)
        self.preprocessing = self._runner.preprocessing
        num_classes = self.model.config.num_classes
        self._batch_size, self._top = batch_size, min(top, num_classes)
        names = [str(number) for number in range(num_classes)]
        self.classes = self.model.classes or tuple(names)

    def __call__(self, images: Sequence[Any] | Any) -> list[Prediction]:
        """Predict for images.

        Args:
            images: paths, arrays (H, W) or (H, W, C) uint8, or PIL images; one or a sequence of
                them.

        Returns:
            One prediction per image, in order; an image that can't be read has an `error`.
        """
        if isinstance(images, str | os.PathLike) or not isinstance(images, Sequence):
            images = [images]
        return list(self.predict(images))

    def prepare(self, image: Any) -> np.ndarray:
        """Return an image as the backend takes it.

        Args:
            image: a path, a file's bytes, an array (H, W) or (H, W, C) uint8, or a PIL image.

        Returns:
            (C, H, W) in 0..255: uint8, or float32 where the preprocessing does not round.

        Raises:
            DataError: it can't be read.
        """
        return self._runner.prepare(image)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits (N, K) float32 of images (N, C, H, W) from `prepare`.

        Raises:
            RequestError: pixels of another shape.
        """
        wanted = (self.preprocessing.channels, *self.preprocessing.size)
        if pixels.ndim != 4 or pixels.shape[1:] != wanted:
            sides = ", ".join(map(str, wanted))
            raise RequestError(
                f"pixels of shape {pixels.shape}: give a batch of what prepare returns, "
                f"(N, {sides})"
            )
        outputs: np.ndarray = self.backend(torch.from_numpy(pixels)).cpu().numpy()
        return outputs

    def predict(self, images: Sequence[Any]) -> Iterator[Prediction]:
        """Yield predictions one by one; memory use is independent of the number of images."""
        names = image_names(images)
        errors: dict[int, str] = {}
        for loaded, logits in self._runner.outputs(
            self.backend, images, batch_size=self._batch_size, errors=errors
        ):
            shares = self.model.probabilities(logits)
            values, class_indices = shares.topk(self._top, dim=1)
            for index, probabilities, indices in zip(
                loaded["index"].tolist(), values.tolist(), class_indices.tolist(), strict=True
            ):
                error = errors.pop(index, "")
                named = zip(
                    (self.classes[class_index] for class_index in indices),
                    probabilities,
                    strict=True,
                )
                yield Prediction(names[index], () if error else tuple(named), error)
