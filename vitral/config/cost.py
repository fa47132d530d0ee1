"""Estimates of the memory that training takes, from a config."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitral.config.model import ModelConfig

ACTIVATION_BYTES = 4 * 10**9
"""Limit for the activations of one forward pass, in float32."""
PER_BLOCK = 17
"""Activations of a token's width that a block keeps; eight are those of the MLP, four times as wide
(Korthikanti et al., arXiv 2205.05198, section 4.1, without the attention matrix, which fused
attention does not keep)."""
_PER_UNIT = 21
"""Activation maps of a bottleneck's inner width that a unit keeps (measured on R50x1)."""
AXIAL_FACTOR = 3
"""How many times as much an axial unit keeps (measured on AxialResNet50s)."""


def images_at_once(config: "ModelConfig") -> int:
    """Return the number of images whose activations take at most 4 GB, at least one."""
    return max(1, int(ACTIVATION_BYTES / (4 * config.num_activations())))


def stage_activations(stages: tuple[int, ...], width: int, image_hw: tuple[int, int]) -> float:
    """Return the number of activations that the units of all stages keep.

    Args:
        stages: units of each stage.
        width: inner channels of the first stage's units; each later stage doubles them.
        image_hw: pixels of the input.
    """
    positions = math.prod(image_hw)
    values = positions / 4 * width * 2  # the root and its norm
    for number, units in enumerate(stages):
        inner, area = width * 2**number, positions / (16 * 4**number)
        values += units * area * inner * _PER_UNIT
    return values
