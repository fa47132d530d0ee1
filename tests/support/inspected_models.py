"""Measurements of small models, for tests of the figures."""

from functools import cache
from typing import Any

import numpy as np
import torch

from support.runs import photograph
from support.small_models import build_small
from vitral.data.examples import Examples
from vitral.data.sources.arrays import ArrayStore
from vitral.figures.inspection.inspected import Inspected
from vitral.inspection.inspect import InspectSettings, inspect_model


@cache
def inspect_small(family: str = "ViT", *, count: int = 2, **fields: Any) -> Inspected:
    """Inspect a small model of a family on images of 2:3."""
    model = build_small(family, **{"image_size": (32, 48)} | fields)
    model.classes = ("robin", "wren", "<b>crow</b>", "rook", "jay")
    pixels = np.stack([np.roll(photograph(64, 96), 9 * n, axis=1) for n in range(count)])
    examples = Examples(
        ArrayStore(pixels, path="photos"), np.arange(count), np.zeros(count, np.int64)
    )
    return Inspected(
        inspect_model(
            model,
            examples,
            preprocessing=model.preprocessing,
            device=torch.device("cpu"),
            settings=InspectSettings(source=f"runs/{family}", credit="Photographs: nobody's"),
        )
    )
