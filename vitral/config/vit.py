"""The config of a Vision Transformer.

A hybrid is a ViT whose patches are cut from the last map of a ResNet (`resnet`); an AxialViT is a
ViT whose blocks attend along rows, then along columns (`attention="axial"`).
"""

from dataclasses import dataclass, replace

from vitral.config.checks import (
    Size,
    as_pair,
    check_choice,
    check_not_negative,
    check_positive,
    check_share,
    check_types,
    show_size,
)
from vitral.config.cost import PER_BLOCK
from vitral.config.resnet import ResNetConfig
from vitral.errors import RequestError

POOLS = ("token", "gap", "map", "token+gap", "token+register")
ACTIVATIONS = ("gelu_tanh", "gelu", "swiglu")
POSITIONS = ("1d", "2d", "relative", "sincos2d", "none")
POSITION_STAGES = ("stem", "every", "shared")
RESIZES = (
    "bilinear_corners", "bicubic", "bicubic_antialias", "bicubic_corners", "bicubic_offset",
)  # fmt: skip
ATTENTIONS = ("full", "axial")


@dataclass(frozen=True)
class ViTConfig:
    """The architecture of a Vision Transformer. Source: ViT paper (arXiv 2010.11929v2), 3.1."""

    name: str
    """The paper's name, such as `ViT-B/16`; for display, nothing is derived from it."""
    patch_size: Size
    """Side of a patch or (height, width), in pixels; in a hybrid, positions of the ResNet's map."""
    embed_dim: int
    """Width of every token, D (Table 1, "Hidden size")."""
    depth: int
    """Number of encoder blocks, L (Table 1, "Layers")."""
    num_heads: int
    """Attention heads per block; divides `embed_dim` (Table 1)."""
    mlp_dim: int
    """Width of the MLP's hidden layer (Table 1)."""
    image_size: Size = 224
    """Pixels of the input: the side of a square, or (height, width)."""
    in_channels: int = 3
    """Channels of the input image."""
    num_classes: int = 1000
    """Width of the logits; 0: no head, the model returns its features."""
    pool: str = "token"
    """What the head reads: "token" (the class token), "gap" (mean over the patches, D.4), "map"
    (attention pooling), "token+gap" (both, side by side, as DINOv2's classifiers) or
    "token+register" (class token and first register, as DeiT's two heads)."""
    representation_size: int = 0
    """Above 0: a tanh layer of that width before the head, `pre_logits` (section 3.1)."""
    dropout: float = 0.0
    """Share of activations dropped after each dense layer but the qkv projections (B.1)."""
    drop_path: float = 0.0
    """Share of an example's branches skipped in the last block in training, growing linearly from
    0 in the first (stochastic depth, arXiv 1603.09382)."""
    activation: str = "gelu_tanh"
    """"gelu_tanh" (the official code's), "gelu" (exact; timm's, Hugging Face's) or "swiglu" (a
    gated MLP, DINOv2's giant)."""
    norm_eps: float = 1e-6
    """Added to the variance in every LayerNorm (the official code's 1e-6)."""
    position: str = "1d"
    """"1d": a learned vector per position; "2d": one for the row and one for the column, side by
    side; "relative": by offset, in the attention; "sincos2d": fixed sines and cosines; "none"
    (Table 8, D.4)."""
    position_at: str = "stem"
    """Where positions enter: once after the "stem", before "every" block with a table of its own,
    or before each block with a "shared" one (Table 8)."""
    position_resize: str = "bilinear_corners"
    """How a learned 1-D table is interpolated to another grid: "bilinear_corners" (the official
    code's), "bicubic" (DeiT, MAE, Hugging Face), "bicubic_antialias" (timm, DINOv2 with
    registers), "bicubic_corners" (torchvision) or "bicubic_offset" (DINO, DINOv2)."""
    relative_per_head: bool = False
    """With `position="relative"`, whether each head has its own table (the paper does not say)."""
    class_token: bool | None = None
    """Whether a class token stands before the patches; None: when the pool reads it."""
    num_registers: int = 0
    """Learned tokens between class token and patches, without positions (arXiv 2309.16588)."""
    qk_norm: bool = False
    """Whether queries and keys are LayerNorm-ed, each head by itself (arXiv 2302.05442)."""
    layer_scale: float | None = None
    """Start value of a learned factor on each channel of each branch (arXiv 2103.17239); None:
    no factors."""
    norm_pooled: bool = False
    """Whether the last norm follows the pooling instead of going before it (timm's `fc_norm`)."""
    attention: str = "full"
    """"full", or "axial": along rows, then along columns (D.6)."""
    resnet: ResNetConfig | None = None
    """A hybrid's ResNet, whose last map is cut into patches (4.1); its input is the model's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", as_pair(self.patch_size, name="patch_size"))
        object.__setattr__(self, "image_size", as_pair(self.image_size, name="image_size"))
        check_types(self)
        reads_token = self.pool.startswith("token")
        if self.class_token is None:
            object.__setattr__(self, "class_token", reads_token)
        if self.position == "relative" and self.position_at == "stem":
            # Offsets act in the attention of every block: Table 8 has them under "default".
            object.__setattr__(self, "position_at", "every")
        if self.resnet is not None:
            fitted = replace(
                self.resnet, image_size=self.image_size, in_channels=self.in_channels, num_classes=0
            )
            object.__setattr__(self, "resnet", fitted)
        check_positive(
            embed_dim=self.embed_dim, depth=self.depth, num_heads=self.num_heads,
            mlp_dim=self.mlp_dim, in_channels=self.in_channels, norm_eps=self.norm_eps,
            layer_scale=self.layer_scale,
        )  # fmt: skip
        check_not_negative(
            num_classes=self.num_classes, representation_size=self.representation_size,
            num_registers=self.num_registers,
        )  # fmt: skip
        check_share(dropout=self.dropout, drop_path=self.drop_path)
        check_choice(POOLS, pool=self.pool)
        check_choice(ACTIVATIONS, activation=self.activation)
        check_choice(POSITIONS, position=self.position)
        check_choice(POSITION_STAGES, position_at=self.position_at)
        check_choice(RESIZES, position_resize=self.position_resize)
        check_choice(ATTENTIONS, attention=self.attention)
        self._check_together()

    def _check_together(self) -> None:
        """Reject combinations of fields that conflict, and fields without effect."""
        if self.embed_dim % self.num_heads:
            divisors = [str(n) for n in range(1, 33) if self.embed_dim % n == 0]
            raise RequestError(
                f"num_heads={self.num_heads} does not divide embed_dim={self.embed_dim}: "
                f"use one of {', '.join(divisors)}"
            )
        if 0 in self.grid and self.resnet:
            raise RequestError(
                f"image_size={self.image_size} gives a map of {show_size(self.map_hw)}, smaller "
                f"than patch_size={self.patch_size}: use larger images or smaller patches"
            )
        if 0 in self.grid:
            raise RequestError(
                f"image_size={self.image_size} is smaller than patch_size={self.patch_size}: "
                "use larger images or smaller patches"
            )
        if self.pool.startswith("token") and not self.class_token:
            raise RequestError(
                f"pool={self.pool!r} reads the class token: leave class_token out, or use pool=gap"
            )
        if self.pool == "token+register" and not self.num_registers:
            raise RequestError("pool='token+register' reads a register: set num_registers=1")
        if self.norm_pooled and self.pooled_dim != self.embed_dim:
            raise RequestError(
                f"norm_pooled: the last norm is as wide as a token, and pool={self.pool!r} gives "
                "twice that: leave it out"
            )
        parts = {"2d": 2, "sincos2d": 4}.get(self.position, 1)
        if self.embed_dim % parts:
            raise RequestError(
                f"position={self.position!r} splits embed_dim={self.embed_dim} into {parts}: use a "
                f"multiple of {parts}"
            )
        if self.position == "none" and self.position_at != "stem":
            raise RequestError(
                f"position_at={self.position_at!r} has no effect with position='none': leave it out"
            )
        if self.position != "1d" and self.position_resize != "bilinear_corners":
            raise RequestError(
                f"position_resize={self.position_resize!r} has no effect with "
                f"position={self.position!r}: leave it out"
            )
        if self.relative_per_head and self.position != "relative":
            raise RequestError(
                f"relative_per_head has no effect with position={self.position!r}: leave it out"
            )
        if self.attention == "axial" and self.position == "relative":
            raise RequestError(
                "position='relative' counts offsets over the whole grid, which attention='axial' "
                "does not see at once: use 1d, 2d, sincos2d or none"
            )
        if self.attention == "axial" and self.num_registers:
            raise RequestError(
                f"num_registers={self.num_registers}: axial attention has no registers, leave it "
                "out"
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        assert isinstance(self.image_size, tuple)
        return self.image_size

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels or in positions of the ResNet's map."""
        assert isinstance(self.patch_size, tuple)
        return self.patch_size

    @property
    def map_hw(self) -> tuple[int, int]:
        """Height and width of what is cut into patches: the image, or the ResNet's last map."""
        return self.resnet.grid if self.resnet else self.image_hw

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across; pixels that fill no patch are left out at right and bottom."""
        return self.grid_at(self.image_hw)

    def grid_at(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the patches down and across for another image size; 0: too small for a patch."""
        sides = self.resnet.grid_at(image_hw) if self.resnet else image_hw
        return (sides[0] // self.patch_hw[0], sides[1] // self.patch_hw[1])

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels of the image that a patch stands for, down and across."""
        step = self.resnet.stride if self.resnet else 1
        return (self.patch_hw[0] * step, self.patch_hw[1] * step)

    @property
    def num_patches(self) -> int:
        """Number of patches, P."""
        return self.grid[0] * self.grid[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: the class token and the registers."""
        return int(bool(self.class_token)) + self.num_registers

    @property
    def pooled_dim(self) -> int:
        """Width of the pooled tokens."""
        return self.embed_dim * (2 if "+" in self.pool else 1)

    @property
    def feature_dim(self) -> int:
        """Width of what the head reads."""
        return self.representation_size or self.pooled_dim

    @property
    def num_branches(self) -> int:
        """Branches of a block that stochastic depth may skip: attention and MLP, twice if axial."""
        return 4 if self.attention == "axial" else 2

    def with_channels(self, in_channels: int) -> "ViTConfig":
        """Return the config for weights that are adapted to other channels."""
        stem = self.resnet.with_channels(in_channels) if self.resnet else None
        return replace(self, in_channels=in_channels, resnet=stem)

    def num_activations(self) -> float:
        """Return the number of activations that one image keeps for the backward pass."""
        tokens = self.num_patches + self.num_prefix_tokens
        branches = self.num_branches / 2
        values = branches * self.depth * tokens * self.embed_dim * PER_BLOCK
        return values + (self.resnet.num_activations() if self.resnet else 0)

    def uncovered_pixels_note(self) -> str | None:
        """Return a note on pixels that no patch covers, with the nearest sizes that do, or None."""
        rest = [size % patch for size, patch in zip(self.map_hw, self.patch_hw, strict=True)]
        if not any(rest):
            return None
        if self.resnet:
            return (
                f"patches of {show_size(self.patch_hw)} do not tile the ResNet's map of "
                f"{show_size(self.map_hw)}: what is left at the bottom and right is left out; "
                f"images with sides that {self.resnet.stride * self.patch_hw[0]} and "
                f"{self.resnet.stride * self.patch_hw[1]} divide lose nothing"
            )
        below = (self.image_hw[0] - rest[0], self.image_hw[1] - rest[1])
        above = tuple(b + p if r else b for b, p, r in zip(below, self.patch_hw, rest, strict=True))
        return (
            f"patches of {show_size(self.patch_hw)} do not tile images of "
            f"{show_size(self.image_hw)}: {rest[0]} pixels at the bottom and {rest[1]} at the "
            f"right are left out; {show_size(below)} and {show_size(above)} tile"
        )
