"""The features of examples, the input of a model's head: computed once, optionally cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vitral.errors import DataError, ModelFileError, RequestError
from vitral.evaluate.arrays import Features
from vitral.evaluate.feature_cache import (
    Kept,
    WatchedStore,
    content_digests,
    feature_key,
    load_features,
    save_features,
)
from vitral.evaluate.forward import evaluating, model_outputs
from vitral.models.model import Model

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.examples import Examples


def extract_features(
    model: nn.Module,
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int = 64,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    workers: int = -1,
    report_progress: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
) -> Features:
    """Compute `model.features` of every example once, or load them from the cache.

    Args:
        model: a Model; temporarily in evaluation mode.
        examples: in any order.
        preprocessing: of the model, or another one.
        batch_size: affects rounding only.
        device: where the model is.
        precision: of the matrix products.
        workers: decoding threads; -1: by the number of cores.
        report_progress: called with the number of images done and the total.
        cache: a folder, such as `cache_dir() / "features"`, in which features are stored by the
            contents of images and model; None: no cache.

    Raises:
        RequestError: a module that has no features, or a bad batch size.
        DataError: no image could be read.
        ModelFileError: the model's features are not finite.
    """
    if not isinstance(model, Model):
        raise RequestError(
            f"{type(model).__name__} has no features that a head reads: give a model of "
            "vitral.create_model or vitral.load_model"
        )
    if batch_size < 1:
        raise RequestError(f"batch_size={batch_size} must be 1 or more")
    if not len(examples):
        raise DataError("there are no examples to extract features of: give one or more")
    options = _How(preprocessing, batch_size, device, precision, workers, report_progress)
    with evaluating(model):
        digests = content_digests(examples, workers=workers) if cache else None
        if cache is None or digests is None:
            extracted = _compute(model, examples, options)
        else:
            extracted = _look_up(model, examples, options, cache, digests)
    return Features(
        extracted.values, examples.labels[extracted.indices], extracted.indices, extracted.errors
    )


def check_finite(values: np.ndarray, names: Sequence[str]) -> None:
    """Check that features (N, D) are finite.

    Args:
        values: one row per image.
        names: of the images.

    Raises:
        ModelFileError: they are not; names the first image.
    """
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        worst = values[row][~np.isfinite(values[row])][0]
        raise ModelFileError(
            f"the features of {names[row]} are not finite but {worst}: the model's weights are "
            "damaged, or too large for its precision"
        )


@dataclass(frozen=True)
class _How:
    """The arguments of an extraction."""

    preprocessing: Preprocessing
    batch_size: int
    device: torch.device
    precision: torch.dtype
    workers: int
    report_progress: Callable[[int, int], None] | None

    def passed(self) -> dict[str, Any]:
        names = ("preprocessing", "batch_size", "device", "precision", "workers")
        return {name: getattr(self, name) for name in names}


def _look_up(
    model: Model, examples: Examples, options: _How, cache: Path, digests: Sequence[str]
) -> Kept:
    """Return features from the cache, else compute and cache them."""
    # A batch of one image needs only one thread.
    single = replace(options, batch_size=1, workers=0).passed()
    [(_, first)] = model_outputs(model.features, examples.select(np.arange(1)), errors={}, **single)
    key = feature_key(
        model,
        digests,
        preprocessing=options.preprocessing,
        precision=options.precision,
        device=options.device,
        first=first.numpy(),
    )
    extracted = load_features(cache, key)
    if extracted is None:
        watched = WatchedStore(examples, digests)
        extracted = _compute(model, replace(examples, store=watched), options)
        if not watched.has_changed:
            save_features(cache, key, extracted)
    elif options.report_progress:
        options.report_progress(len(examples), len(examples))
    return extracted


def _compute(model: Model, examples: Examples, options: _How) -> Kept:
    errors: dict[int, str] = {}
    values, indices = [], []
    done = 0
    for loaded, outputs in model_outputs(
        model.features, examples, errors=errors, **options.passed()
    ):
        valid = loaded["valid"].numpy()
        values.append(outputs.numpy()[valid])
        indices.append(loaded["index"].numpy()[valid])
        check_finite(values[-1], [examples.name(index) for index in indices[-1].tolist()])
        done += len(valid)
        if options.report_progress:
            options.report_progress(done, len(examples))
    if not any(map(len, indices)):
        first, reason = min(errors.items())
        raise DataError(
            f"no image could be read: {examples.name(first)}: {reason}: see `vitral data check`"
        )
    return Kept(np.concatenate(values), np.concatenate(indices), dict(sorted(errors.items())))
