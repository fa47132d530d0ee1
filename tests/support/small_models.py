"""One small model of each family, without zero weights."""

from typing import Any

import torch

from vitral.config.model import config_from
from vitral.config.resnet import V1_FIELDS
from vitral.models.build import build_model
from vitral.models.model import Model

SMALL_VIT: dict[str, Any] = {
    "name": "small", "image_size": (24, 32), "patch_size": 8, "num_classes": 5, "embed_dim": 16,
    "depth": 2, "num_heads": 2, "mlp_dim": 24,
}  # fmt: skip
SMALL_RESNET: dict[str, Any] = {
    "name": "small", "image_size": (24, 32), "stages": (1, 2), "width_factor": 0.5,
    "num_classes": 5,
}  # fmt: skip
AXIAL = {"attention": "axial", "patch_size": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "ViT": SMALL_VIT,
    "ViT map": SMALL_VIT | {"pool": "map"},
    "hybrid": SMALL_VIT | {"patch_size": (1, 2), "resnet": SMALL_RESNET | V1_FIELDS},
    "BiT": SMALL_RESNET,
    "ResNet v1": SMALL_RESNET | V1_FIELDS,
    "AxialViT gap": SMALL_VIT | AXIAL | {"pool": "gap"},
    "AxialViT token": SMALL_VIT | AXIAL,
    "AxialViT map": SMALL_VIT | AXIAL | {"pool": "map"},
    "AxialResNet": SMALL_RESNET | {"width_factor": 0.125, "num_groups": 2},
}


@torch.no_grad()
def build_small(family: str = "ViT", *, seed: int = 10, **fields: Any) -> Model:
    """Build the small model of a family, in evaluation mode, with every weight off its start."""
    torch.manual_seed(seed)
    model = build_model(config_from(FAMILIES[family] | fields))
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def small_batch(model: Model, *, count: int = 2, seed: int = 12) -> torch.Tensor:
    """Return images (N, C, H, W) in [-1, 1] that fit a model."""
    shape = (count, model.config.in_channels, *model.config.image_hw)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
