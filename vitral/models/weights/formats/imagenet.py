"""What torchvision and the self-supervised models do with images: ImageNet's statistics."""

from vitral.models.weights.adapt import channels_preprocessing
from vitral.spec.model import ModelConfig
from vitral.spec.preprocessing import Preprocessing

# Of ImageNet's training images, as torchvision and timm (IMAGENET_DEFAULT_MEAN) have them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def imagenet_preprocessing(
    config: ModelConfig, *, interpolation: str, crop_share: float
) -> Preprocessing:
    """Return the usual evaluation: the shorter side resized, the centre cut, ImageNet's mean."""
    preprocessing = Preprocessing(
        size=config.image_hw,
        crop_share=crop_share,
        interpolation=interpolation,
        mean=MEAN,
        std=STD,
    )
    if config.in_channels == len(MEAN):
        return preprocessing
    return channels_preprocessing(preprocessing, config.in_channels)
