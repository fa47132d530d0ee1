"""Build models by name and by config."""

from typing import Any

from vitral.config.model import ModelConfig
from vitral.config.names import model_config
from vitral.config.preprocessing import Preprocessing
from vitral.config.resnet import AxialResNetConfig, ResNetConfig
from vitral.config.vit import ViTConfig
from vitral.models.axial_resnet import AxialResNet
from vitral.models.model import Model, note_uncovered_pixels
from vitral.models.resnet import ResNet
from vitral.models.vit import ViT

_FAMILIES: dict[type[ModelConfig], type[ViT] | type[ResNet] | type[AxialResNet]] = {
    ViTConfig: ViT,
    ResNetConfig: ResNet,
    AxialResNetConfig: AxialResNet,
}


def create_model(name: str, **fields: Any) -> Model:
    """Build a model with fresh weights.

    Args:
        name: such as "ViT-B/16", "R50x1", "R50x1+ViT-B/16", "AxialViT-B/32" or "AxialResNet50s";
            case and separators do not matter.
        fields: of its config, such as num_classes=10, image_size=(224, 320), pool="gap".

    Raises:
        RequestError: an unknown name or field (the nearest is named), or a bad value.
    """
    model = build_model(model_config(name, **fields))
    note_uncovered_pixels(model)
    return model


def build_model(
    config: ModelConfig,
    *,
    preprocessing: Preprocessing | None = None,
    classes: tuple[str, ...] | None = None,
    output: str = "softmax",
) -> Model:
    """Build the model that a config describes, with fresh weights.

    Args:
        config: of the model.
        preprocessing: of its images; None: the family's default.
        classes: the names of its outputs in order.
        output: "softmax" or "sigmoid": how logits become probabilities.

    Raises:
        RequestError: an unknown output.
    """
    family = _FAMILIES[type(config)]
    return family(
        config,  # type: ignore[arg-type]
        preprocessing=preprocessing,
        classes=classes,
        output=output,
    )
