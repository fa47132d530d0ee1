"""Extractions of features that tests compare."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitral.data.dataset import open_dataset
from vitral.data.examples import Examples
from vitral.evaluate.arrays import Features
from vitral.evaluate.features import extract_features


def extract(model: nn.Module, examples: Examples, **how: Any) -> Features:
    options = {
        "preprocessing": getattr(model, "preprocessing", None),
        "device": torch.device("cpu"),
    } | how
    return extract_features(model, examples, **options)


def same(one: Features, other: Features) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ("values", "labels", "indices")
    )
    return arrays and one.errors == other.errors


def opened(photos: Path, *, decoded: bool = False) -> Examples:
    data = open_dataset(photos, channels=1)
    return (data.keeping_decoded() if decoded else data).everything()
