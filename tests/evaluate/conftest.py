"""A small model and a few files, for features."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from support.runs import pattern_images, write_patterns

import vitral
from vitral.models.model import Model


@pytest.fixture
def model() -> Model:
    torch.manual_seed(1)
    return vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=2, num_heads=2, mlp_dim=32, num_classes=4,
        in_channels=1, dropout=0.2,
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of class folders."""
    images, labels = pattern_images(12)
    for number, (image, label) in enumerate(zip(images, labels % 2, strict=True)):
        path = tmp_path / "photos" / "ab"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """An .npz of four easy classes with train, validation and test splits."""
    return write_patterns(tmp_path / "patterns.npz")
