"""Inspection of a model: images in, arrays out. `vitral.figures` draws them.

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from vitral._lazy import lazy_names

if TYPE_CHECKING:
    from vitral.inspection.attention import (
        AxialMaps,
        attention_maps,
        full_attention,
        pixels_per_patch,
    )
    from vitral.inspection.attention_distance import (
        attention_entropy,
        attention_reach,
        mean_attention_distance,
    )
    from vitral.inspection.embedding import (
        embedding_filters,
        feature_colors,
        patch_similarity,
        position_similarity,
        principal_filters,
    )
    from vitral.inspection.occlusion import occlusion_sensitivity
    from vitral.inspection.rollout import attention_rollout, attention_rollouts, pooled_rollout

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
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "attention_entropy": "vitral.inspection.attention_distance",
        "attention_maps": "vitral.inspection.attention",
        "attention_reach": "vitral.inspection.attention_distance",
        "attention_rollout": "vitral.inspection.rollout",
        "attention_rollouts": "vitral.inspection.rollout",
        "AxialMaps": "vitral.inspection.attention",
        "embedding_filters": "vitral.inspection.embedding",
        "feature_colors": "vitral.inspection.embedding",
        "full_attention": "vitral.inspection.attention",
        "mean_attention_distance": "vitral.inspection.attention_distance",
        "occlusion_sensitivity": "vitral.inspection.occlusion",
        "patch_similarity": "vitral.inspection.embedding",
        "pixels_per_patch": "vitral.inspection.attention",
        "pooled_rollout": "vitral.inspection.rollout",
        "position_similarity": "vitral.inspection.embedding",
        "principal_filters": "vitral.inspection.embedding",
    },
)
