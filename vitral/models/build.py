"""Models by name."""

from typing import Any

from vitral.models.vit import ViT
from vitral.spec.names import model_config


def create_model(name: str, **fields: Any) -> ViT:
    """Build a model with fresh weights.

    Args:
        name: such as "ViT-B/16"; case and separators do not matter.
        fields: of its config, such as num_classes=10, image_size=(224, 320), pool="gap".

    Raises:
        RequestError: an unknown name or field (the nearest is named), or a bad value.
    """
    return ViT(model_config(name, **fields))
