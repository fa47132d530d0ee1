"""The Vision Transformer as data: one frozen record says all that a ViT is."""

import dataclasses
from dataclasses import dataclass

from vitral.errors import RequestError
from vitral.spec.checks import check_choice, check_not_negative, check_positive, check_share

POOLS = ("token", "gap")
ACTIVATIONS = ("gelu_tanh", "gelu")


@dataclass(frozen=True)
class ViTConfig:
    """The architecture of a Vision Transformer. Source: ViT paper (arXiv 2010.11929v2), 3.1."""

    name: str
    """The paper's name, such as `ViT-B/16`; for people, nothing is derived from it."""
    patch_size: int | tuple[int, int]
    """Pixels of one patch: the side of a square, or (height, width)."""
    embed_dim: int
    """Width of every token, D (Table 1, "Hidden size")."""
    depth: int
    """Number of encoder blocks, L (Table 1, "Layers")."""
    num_heads: int
    """Attention heads a block; divides `embed_dim` (Table 1)."""
    mlp_dim: int
    """Width of the MLP's hidden layer (Table 1)."""
    image_size: int | tuple[int, int] = 224
    """Pixels of the input: the side of a square, or (height, width)."""
    in_channels: int = 3
    """Channels of the input image."""
    num_classes: int = 1000
    """Width of the logits; 0: no head, the model returns its features."""
    pool: str = "token"
    """What the head reads: "token" (the class token) or "gap" (mean over the patches, D.4)."""
    representation_size: int = 0
    """Above 0: a tanh layer of that width before the head, `pre_logits` (section 3.1)."""
    dropout: float = 0.0
    """Share of activations dropped after each dense layer but the qkv projections (B.1)."""
    activation: str = "gelu_tanh"
    """"gelu_tanh" (the official code's) or "gelu" (exact; timm's, Hugging Face's)."""
    norm_eps: float = 1e-6
    """Added to the variance in every LayerNorm (the official code's 1e-6)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", _as_pair(self.patch_size, name="patch_size"))
        object.__setattr__(self, "image_size", _as_pair(self.image_size, name="image_size"))
        check_positive(
            embed_dim=self.embed_dim, depth=self.depth, num_heads=self.num_heads,
            mlp_dim=self.mlp_dim, in_channels=self.in_channels, norm_eps=self.norm_eps,
        )  # fmt: skip
        check_not_negative(
            num_classes=self.num_classes, representation_size=self.representation_size
        )
        check_share(dropout=self.dropout)
        check_choice(POOLS, pool=self.pool)
        check_choice(ACTIVATIONS, activation=self.activation)
        if self.embed_dim % self.num_heads:
            divisors = [str(n) for n in range(1, 33) if self.embed_dim % n == 0]
            raise RequestError(
                f"num_heads={self.num_heads} does not divide embed_dim={self.embed_dim}: "
                f"use one of {', '.join(divisors)}"
            )
        if 0 in self.grid:
            raise RequestError(
                f"image_size={self.image_size} is smaller than patch_size={self.patch_size}: "
                "use larger images or smaller patches"
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        assert isinstance(self.image_size, tuple)
        return self.image_size

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        assert isinstance(self.patch_size, tuple)
        return self.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across; what does not fill a patch is left out, right and bottom."""
        return (self.image_hw[0] // self.patch_hw[0], self.image_hw[1] // self.patch_hw[1])

    @property
    def num_patches(self) -> int:
        """Number of patches, P."""
        return self.grid[0] * self.grid[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: the class token."""
        return 1 if self.pool == "token" else 0

    @property
    def feature_dim(self) -> int:
        """Width of what the head reads."""
        return self.representation_size or self.embed_dim

    def untiled_note(self) -> str | None:
        """Say which pixels the patches leave out, with the nearest sizes that tile; or None."""
        rest = [size % patch for size, patch in zip(self.image_hw, self.patch_hw, strict=True)]
        if not any(rest):
            return None
        below = (self.image_hw[0] - rest[0], self.image_hw[1] - rest[1])
        above = tuple(b + p if r else b for b, p, r in zip(below, self.patch_hw, rest, strict=True))
        return (
            f"patches of {_show(self.patch_hw)} do not tile images of {_show(self.image_hw)}: "
            f"{rest[0]} pixels at the bottom and {rest[1]} at the right are left out; "
            f"{_show(below)} and {_show(above)} tile"
        )


def vit_config_from(fields: dict[str, object]) -> ViTConfig:
    """Build a config from plain data such as JSON, where pairs are lists.

    Raises:
        RequestError: a field that ViTConfig does not have, or a bad value.
    """
    known = {field.name for field in dataclasses.fields(ViTConfig)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise RequestError(
            f"a ViT has no field {unknown[0]!r}: its fields are {', '.join(sorted(known))}"
        )
    pairs = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return ViTConfig(**pairs)  # type: ignore[arg-type]


def _as_pair(size: int | tuple[int, int], *, name: str) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise RequestError(f"{name}={size}: give a number of pixels, or (height, width)")
    return pair


def _show(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]}"
