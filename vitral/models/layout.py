"""What a model is made of, asked without its type: what it sees, where it attends, what is what."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import nn

Kind = Literal["full", "row", "column", "pool"]
"""Of an attention."""


@dataclass(frozen=True)
class Layout:
    """What an image becomes in a model: the patches, or the places of the last map."""

    grid: tuple[int, int]
    """Rows and columns."""
    stride: tuple[int, int]
    """Pixels down and across that a place stands for."""
    num_prefix_tokens: int = 0
    """Class token and registers, which come before the patches."""
    has_class_token: bool = False
    """Whether the first of them is a class token."""
    has_tokens: bool = False
    """Whether the places are tokens, as `tokens` gives them; else a map's."""
    pool: str = "gap"
    """What of them the head reads, of `ViTConfig.pool`."""


@dataclass(frozen=True)
class AttentionLayer:
    """An attention that can be traced."""

    name: str
    """In `trace_names`."""
    layer: str
    """The block or unit that it belongs to; "pool" of the pool's probe."""
    kind: Kind
    """Over all tokens (N, heads, L, L); along the rows or columns of a grid (N, lines, heads,
    places, places), prefix tokens before each line's; or a probe's over all (N, heads, 1, L)."""
    num_heads: int
    grid: tuple[int, int]
    """Rows and columns of the map that it attends over."""
    stride: tuple[int, int]
    """Pixels down and across that one of its places stands for."""
    num_prefix_tokens: int = 0


@runtime_checkable
class HasTables(Protocol):
    """A module that states which of its own parameters are tables or tokens."""

    def no_weight_decay(self) -> set[str]:
        """Return their names: what is added or looked up, not multiplied."""
        ...


def tables_of(module: nn.Module) -> set[str]:
    """Return the names of all parameters that a module, or one inside it, states as tables."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, own in module.named_modules()
        if isinstance(own, HasTables)
        for name in own.no_weight_decay()
    }


def stage_depth(name: str, stages: tuple[int, ...]) -> int:
    """Return the depth of a parameter in a network of root and stages, counted in units.

    Args:
        name: such as `root.weight`, `stages.1.0.conv1.weight`; any other comes after the units.
        stages: units of each stage.
    """
    part, _, rest = name.partition(".")
    if part == "stages":
        stage, unit = rest.split(".")[:2]
        return 1 + sum(stages[: int(stage)]) + int(unit)
    if part in ("root", "root_norm") or not stages:
        return 0
    return 1 + sum(stages)
