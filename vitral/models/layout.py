"""Descriptions of a model that do not depend on its type: grid, attention layers, parameters."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn

Kind = Literal["full", "row", "column", "pool"]
"""Kind of an attention layer."""


@dataclass(frozen=True)
class Layout:
    """The grid of an image in a model: its patches, or the positions of the last map."""

    grid: tuple[int, int]
    """Rows and columns."""
    stride: tuple[int, int]
    """Pixels down and across per position."""
    num_prefix_tokens: int = 0
    """Class token and registers, which come before the patches."""
    has_class_token: bool = False
    """Whether the first prefix token is a class token."""
    has_tokens: bool = False
    """Whether the positions are tokens, as `tokens` returns them; else those of a map."""
    pool: str = "gap"
    """What the head reads, one of `ViTConfig.pool`."""


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer that can be traced."""

    name: str
    """Its name in `trace_names`."""
    layer: str
    """The block or unit that it belongs to; "pool" for attention pooling."""
    kind: Kind
    """Over all tokens (N, heads, L, L); along the rows or columns of a grid (N, lines, heads, A, A)
    of A positions, prefix tokens before each line; or a probe's over all (N, heads, 1, L)."""
    num_heads: int
    grid: tuple[int, int]
    """Rows and columns of the map that it attends over."""
    stride: tuple[int, int]
    """Pixels down and across per position of that map."""
    num_prefix_tokens: int = 0


@runtime_checkable
class HasTables(Protocol):
    """A module that states which of its own parameters are tables or tokens."""

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are added or looked up, not multiplied."""
        ...


def tables_of(module: nn.Module) -> set[str]:
    """Return the names of all parameters that a module or its submodules state as tables."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, submodule in module.named_modules()
        if isinstance(submodule, HasTables)
        for name in submodule.no_weight_decay()
    }


def stage_depth(name: str, stages: tuple[int, ...]) -> int:
    """Return the depth of a parameter in a network of root and stages, counted in units.

    Args:
        name: such as `root.weight`, `stages.1.0.conv1.weight`; others come after the units.
        stages: units of each stage.
    """
    part, _, rest = name.partition(".")
    if part == "stages":
        stage, unit = rest.split(".")[:2]
        return 1 + sum(stages[: int(stage)]) + int(unit)
    if part in ("root", "root_norm") or not stages:
        return 0
    return 1 + sum(stages)
