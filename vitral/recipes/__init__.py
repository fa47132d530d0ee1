"""Recipes: named settings, which follow from the facts of a task."""

from dataclasses import dataclass

from vitral.config.model import ModelConfig


@dataclass(frozen=True)
class Facts:
    """A task, as far as recipes look at it."""

    num_images: int
    """Training images."""
    num_classes: int
    image_size: tuple[int, int]
    """Of the model's input, pixels."""
    model: str
    embed_dim: int
    """Width of the model; 0 when it is the caller's own."""
    data: str = ""
    """A named data set's name; else where the data is."""
    image_area: int = 224 * 224
    """Median of the images' pixels."""
    config: ModelConfig | None = None
    """Of a pretrained model; None: weights are fresh, or the model is the caller's own."""
