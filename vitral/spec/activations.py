"""How much of an image's way through a model training keeps, by a rule of thumb."""

import math

from vitral.spec.axial_resnet import AxialResNetConfig
from vitral.spec.model import ModelConfig
from vitral.spec.resnet import ResNetConfig

KEPT_BYTES = 4 * 10**9
"""Of activations of one pass forward, in float32."""
_PER_BLOCK = 17
"""Values of a token's width that a block keeps, of which the MLP, four times as wide, has eight
(Korthikanti et al., arXiv 2205.05198, section 4.1, without the attention matrix, which fused
attention does not keep)."""
_PER_UNIT = 21
"""Maps of a bottleneck's inner width that a unit keeps (measured on R50x1)."""
_AXIAL = 3
"""An axial unit keeps so many times as much (measured on AxialResNet50s)."""


def images_at_once(config: ModelConfig) -> int:
    """Return for how many images training keeps at most 4 GB, at least one."""
    return max(1, int(KEPT_BYTES / (4 * kept_values(config))))


def kept_values(config: ModelConfig) -> float:
    """Return the numbers that one image's pass through a model keeps for the backward pass."""
    if isinstance(config, ResNetConfig):
        return _of_stages(config.stages, config.width, config.image_hw)
    if isinstance(config, AxialResNetConfig):
        width = round(128 * config.width_factor)
        return _AXIAL * _of_stages(config.stages, width, config.image_hw)
    tokens = config.num_patches + config.num_prefix_tokens
    branches = config.num_branches / 2
    kept = branches * config.depth * tokens * config.embed_dim * _PER_BLOCK
    return kept + (kept_values(config.resnet) if config.resnet else 0)


def _of_stages(stages: tuple[int, ...], width: int, image_hw: tuple[int, int]) -> float:
    places = math.prod(image_hw)
    kept = places / 4 * width * 2  # the root and its norm
    for number, units in enumerate(stages):
        inner, own = width * 2**number, places / (16 * 4**number)
        kept += units * own * inner * _PER_UNIT
    return kept
