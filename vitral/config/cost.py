"""The memory that training takes, by arithmetic on a config."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitral.config.model import ModelConfig

KEPT_BYTES = 4 * 10**9
"""Of activations of one pass forward, in float32."""
PER_BLOCK = 17
"""Values of a token's width that a block keeps, of which the MLP, four times as wide, has eight
(Korthikanti et al., arXiv 2205.05198, section 4.1, without the attention matrix, which fused
attention does not keep)."""
_PER_UNIT = 21
"""Maps of a bottleneck's inner width that a unit keeps (measured on R50x1)."""
AXIAL_FACTOR = 3
"""An axial unit keeps so many times as much (measured on AxialResNet50s)."""


def images_at_once(config: "ModelConfig") -> int:
    """Return for how many images training keeps at most 4 GB, at least one."""
    return max(1, int(KEPT_BYTES / (4 * config.kept_values())))


def kept_by_stages(stages: tuple[int, ...], width: int, image_hw: tuple[int, int]) -> float:
    """Return what the units of all stages keep.

    Args:
        stages: units of each.
        width: inner channels of the first stage's units; each further stage doubles them.
        image_hw: pixels of the input.
    """
    places = math.prod(image_hw)
    kept = places / 4 * width * 2  # the root and its norm
    for number, units in enumerate(stages):
        inner, own = width * 2**number, places / (16 * 4**number)
        kept += units * own * inner * _PER_UNIT
    return kept
