"""What a batch must hold, as the objective that trains on it declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vitral.errors import RequestError

if TYPE_CHECKING:
    from vitral.config.run import AugmentSettings

VALUE, MASK = "value", "mask"
TARGETS = (VALUE, MASK)
"""Kinds of targets besides classes: numbers, and a map of whole numbers per image."""
UNCOUNTED = 255
"""In a mask: the value that is ignored, such as of a pixel that was outside of the image."""
Size = tuple[int, int]
TAKEN = ("index", "valid", "label", "source", "flip", "mix_share", "mix_box", "mix_label")
"""Names that batches have, besides `image` and `target`."""


def as_float32(uniforms: np.ndarray) -> np.ndarray:
    """Return uniforms as they are, in the type that models compute in."""
    return uniforms.astype(np.float32)


@dataclass(frozen=True)
class View:
    """One picture that is made of an image."""

    size: Size | None = None
    """Height and width; None: those of the model's preprocessing."""
    augment: AugmentSettings | None = None
    """How it is cropped, mirrored and changed; None: as the run says."""

    def __post_init__(self) -> None:
        size = self.size
        if size is None:
            return
        is_pair = isinstance(size, tuple) and len(size) == 2
        if not is_pair or not all(isinstance(side, int) and side > 0 for side in size):
            raise RequestError(f"size={size} of a view: give (height, width), such as (96, 96)")


@dataclass(frozen=True)
class Draw:
    """Something random about each example, a function of (seed, epoch, index) and its name.

    Such as the mask of patches that MAE hides, or the uniforms of stochastic depth.
    """

    count: int
    """Uniforms that each example gets."""
    make: Callable[[np.ndarray], np.ndarray] = as_float32
    """From uniforms (N, count) in [0, 1), float64, to what the batch holds, (N, ...)."""
    per_view: bool = False
    """Whether each view has its own: then the batch holds (N, views, ...)."""

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise RequestError(f"count={self.count} of a draw: give a whole number from 1 on")


@dataclass(frozen=True)
class Needs:
    """What a batch must hold."""

    label: bool = True
    """Whether classes are read: `label`. Without, folders without class folders are data too."""
    targets: tuple[str, ...] = ()
    """Of `TARGETS`; `target/value` is (N, values) float32, `target/mask` (N, h, w) uint8, which is
    cropped, resized and mirrored with its image."""
    views: tuple[View, ...] = (View(),)
    """One: `image`; several: `image/0`, `image/1`, ..."""
    draws: Mapping[str, Draw] = field(default_factory=dict)
    """By the name that each has in the batch, such as `mask` or `uniforms/drop_path`."""
    mixing: bool = False
    """Whether `mix_share` and `mix_label` are read: else a recipe's mixing is left out."""
    sources: Mapping[str, float] = field(default_factory=dict)
    """Further sources of examples, such as "unlabelled", with the share of a batch that each gives;
    the rest comes from the run's own data. `source` (N,) then tells which one each row is of, 0 for
    the run's own; a row without a class has label -1."""

    def __post_init__(self) -> None:
        if not self.views:
            raise RequestError("views=(): a batch needs one view of each image at least")
        unknown = sorted(set(self.targets) - set(TARGETS))
        if unknown:
            raise RequestError(f"targets={unknown[0]!r}: give some of {', '.join(TARGETS)}")
        taken = sorted(set(self.draws) & set(TAKEN) | {n for n in self.draws if "image" in n})
        if taken:
            raise RequestError(f"a draw called {taken[0]!r}, which batches have: call it otherwise")
        if MASK in self.targets and len(self.views) > 1:
            raise RequestError(
                f"targets='mask' with {len(self.views)} views: a map goes with one view of its "
                "image, give one"
            )
        several = "several sources" if self.sources else "several views of an image"
        if self.mixing and (self.sources or len(self.views) > 1):
            raise RequestError(
                f"mixing=True with {several}: pairs of images of one kind are mixed, leave it out"
            )
        if self.targets and self.sources:
            raise RequestError(
                f"targets={', '.join(self.targets)} with further sources, whose examples have "
                "none: leave out one of them"
            )
        shares = list(self.sources.values())
        if any(not 0 < share < 1 for share in shares) or sum(shares) >= 1:
            raise RequestError(
                f"sources={dict(self.sources)}: give shares above 0 that leave some of the batch "
                "to the run's own data"
            )

    @property
    def image_names(self) -> tuple[str, ...]:
        """What the views are called in a batch."""
        if len(self.views) == 1:
            return ("image",)
        return tuple(f"image/{index}" for index in range(len(self.views)))


CLASSIFICATION = Needs(mixing=True)
"""One view and its class: what supervised classification needs."""
