"""Widths and depths behind the names of models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """The widths and depths behind a ViT's letter."""

    embed_dim: int
    depth: int
    mlp_dim: int
    num_heads: int


# B, L, H: ViT paper, Table 1. Ti, S: DeiT (arXiv 2012.12877), Table 1. g, G: arXiv 2106.04560,
# Table 2. mu, M, So400m, e: big_vision, models/vit.py.
# Mi is ours, for tiny images on a laptop.
VARIANTS = {
    "mu": Variant(embed_dim=32, depth=1, mlp_dim=128, num_heads=2),
    "Mi": Variant(embed_dim=128, depth=4, mlp_dim=512, num_heads=4),
    "Ti": Variant(embed_dim=192, depth=12, mlp_dim=768, num_heads=3),
    "S": Variant(embed_dim=384, depth=12, mlp_dim=1536, num_heads=6),
    "M": Variant(embed_dim=512, depth=12, mlp_dim=2048, num_heads=8),
    "B": Variant(embed_dim=768, depth=12, mlp_dim=3072, num_heads=12),
    "L": Variant(embed_dim=1024, depth=24, mlp_dim=4096, num_heads=16),
    "So400m": Variant(embed_dim=1152, depth=27, mlp_dim=4304, num_heads=16),
    "H": Variant(embed_dim=1280, depth=32, mlp_dim=5120, num_heads=16),
    "g": Variant(embed_dim=1408, depth=40, mlp_dim=6144, num_heads=16),
    "G": Variant(embed_dim=1664, depth=48, mlp_dim=8192, num_heads=16),
    "e": Variant(embed_dim=1792, depth=56, mlp_dim=15360, num_heads=16),
}
LONG_NAMES = {
    "mini": "Mi", "tiny": "Ti", "small": "S", "medium": "M", "base": "B", "large": "L",
    "huge": "H", "giant": "g", "gigantic": "G",
}  # fmt: skip

# Bottleneck units of each stage. 50, 101, 152: He et al. (arXiv 1512.03385), Table 1; 26: AugReg
# (arXiv 2106.10270); 200: big_vision, models/bit.py; 14: one unit a stage.
RESNET_STAGES = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
# Stages and widths of AxialResNet (axial-deeplab, lib/models/axialnet.py).
AXIAL_STAGES = {26: (1, 2, 4, 1), 50: (3, 4, 6, 3)}
AXIAL_WIDTHS = {"s": 0.5, "m": 0.75, "l": 1.0}

COMMON_NAMES = (
    "ViT-Mi/4", "ViT-Mi/7", "ViT-Ti/8", "ViT-Ti/16", "ViT-S/8", "ViT-S/16", "ViT-S/32", "ViT-B/8",
    "ViT-B/16", "ViT-B/32", "ViT-L/16", "ViT-L/32", "ViT-So400m/14", "ViT-H/14", "ViT-g/14",
    "ViT-G/14",
    "R50x1", "R50x2", "R50x3", "R101x1", "R101x3", "R152x1", "R152x2", "R152x4", "R200x3",
    "R50x1+ViT-B/32", "R50x1+ViT-B/16", "R50x1+ViT-L/32", "R50x1+ViT-L/16",
    "R26+S/32", "R26+B/32", "R+Ti/16",
    "AxialViT-B/32", "AxialViT-B/16", "AxialResNet50s", "AxialResNet50l",
)  # fmt: skip
