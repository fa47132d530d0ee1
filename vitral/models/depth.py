"""How far up in a network each parameter is, counted in blocks."""

import re
from collections.abc import Iterable

_UNIT = re.compile(r"(?:^|\.)stages\.(\d+)\.(\d+)\.")
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_ROOT = re.compile(r"(?:^|\.)root(?:_norm)?\.")
_INPUT = re.compile(r"^(?:cls_token|registers|positions|embedding)(?:\.|$)")


def parameter_depths(names: Iterable[str]) -> dict[str, int]:
    """Return the depth of each parameter of a model, by name.

    0 is what meets the image: a ResNet's root, or a ViT's patch embedding with its tokens and
    positions, which in a hybrid come after the ResNet. Each unit of a ResNet and each block of a
    ViT is one deeper; final norm, pooling and head are the deepest (as in arXiv 2106.08254).
    """
    names = list(names)
    units = sorted({unit for name in names if (unit := _unit(name))})
    blocks = {int(match[1]) for match in map(_BLOCK.match, names) if match}
    embedding = len(units) + 1 if units else 0
    first_block = embedding + 1
    above = first_block + max(blocks) + 1 if blocks else embedding

    def depth(name: str) -> int:
        unit, block = _unit(name), _BLOCK.match(name)
        if unit:
            return 1 + units.index(unit)
        if block:
            return first_block + int(block[1])
        if _ROOT.search(name):
            return 0
        return embedding if _INPUT.match(name) else above

    return {name: depth(name) for name in names}


def _unit(name: str) -> tuple[int, int] | None:
    match = _UNIT.search(name)
    return (int(match[1]), int(match[2])) if match else None
