"""Weights under our names, and what they are: what each format's reading gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vitral.spec.model import ModelConfig
from vitral.spec.preprocessing import Preprocessing


@dataclass(frozen=True)
class Loaded:
    """A model as it lies on disk."""

    config: ModelConfig
    """What it is."""
    preprocessing: Preprocessing
    """What its images must become."""
    tensors: dict[str, Tensor]
    """By our names."""
    format: str
    """What it is written in."""
    classes: tuple[str, ...] | None = None
    """The names of its outputs."""
    output: str = "softmax"
    """How its logits become probabilities."""
    reference: Mapping[str, Tensor] | None = None
    """`images` and the `logits` that they gave."""
    assumed: tuple[str, ...] = ()
    """What the files do not tell and was taken for granted."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """`data`, `command` and `licence`, as far as they are known."""
    left_over: tuple[str, ...] = ()
    """Of the file's own names: belongs to no trunk, such as a decoder."""
    unexpected: tuple[str, ...] = ()
    """Of the file's own names: should have had a place."""
