"""Looking inside a model: images in, arrays out. Drawing is `vitral.figures`'.

Names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitral.inspection.attention import (
        AxialMaps,
        attention_maps,
        full_attention,
        pixels_per_patch,
    )
    from vitral.inspection.distance import mean_attention_distance
    from vitral.inspection.entropy import attention_entropy
    from vitral.inspection.filters import embedding_filters, principal_filters
    from vitral.inspection.occlusion import occlusion_sensitivity
    from vitral.inspection.patches import feature_colors, patch_similarity
    from vitral.inspection.positions import position_similarity
    from vitral.inspection.reach import attention_reach
    from vitral.inspection.rollout import attention_rollout, attention_rollouts, pooled_rollout

_PLACES = {
    "AxialMaps": "attention",
    "attention_entropy": "entropy",
    "attention_maps": "attention",
    "attention_reach": "reach",
    "attention_rollout": "rollout",
    "attention_rollouts": "rollout",
    "embedding_filters": "filters",
    "feature_colors": "patches",
    "full_attention": "attention",
    "mean_attention_distance": "distance",
    "occlusion_sensitivity": "occlusion",
    "patch_similarity": "patches",
    "pixels_per_patch": "attention",
    "pooled_rollout": "rollout",
    "position_similarity": "positions",
    "principal_filters": "filters",
}
__all__ = [
    "AxialMaps",
    "attention_entropy",
    "attention_maps",
    "attention_reach",
    "attention_rollout",
    "attention_rollouts",
    "embedding_filters",
    "feature_colors",
    "full_attention",
    "mean_attention_distance",
    "occlusion_sensitivity",
    "patch_similarity",
    "pixels_per_patch",
    "pooled_rollout",
    "position_similarity",
    "principal_filters",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"vitral.inspection.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'vitral.inspection' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
