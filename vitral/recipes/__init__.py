"""Recipes: named settings that are derived from facts about a task."""

from dataclasses import dataclass

from vitral.config.model import ModelConfig


@dataclass(frozen=True)
class Facts:
    """Facts about a task that recipes use."""

    num_images: int
    """Training images."""
    num_classes: int
    image_size: tuple[int, int]
    """Height and width of the model's input, in pixels."""
    model: str
    embed_dim: int
    """Width of the model; 0 when it is the caller's own."""
    data: str = ""
    """Name of a named data set, else the location of the data."""
    image_area: int = 224 * 224
    """Median of the images' pixels."""
    config: ModelConfig | None = None
    """Config of a pretrained model; None: fresh weights, or the model is the caller's own."""
