"""The grammar of model names and the table of variants.

`ViT-B/16` = variant B, patches of 16 pixels. Case and separators do not matter, long names and
timm's are understood (`vit_b16`, `ViT-B_16`, `vit_base_patch16_224`); only g and G are told apart
by case.
"""

import re
from dataclasses import dataclass
from typing import Any

from vitral.errors import RequestError, nearest
from vitral.spec.vit import ViTConfig


@dataclass(frozen=True)
class Variant:
    """The widths and depths behind a letter."""

    embed_dim: int
    depth: int
    mlp_dim: int
    num_heads: int


# B, L, H: ViT paper, Table 1. Ti, S: DeiT (arXiv 2012.12877), Table 1. g, G: arXiv 2106.04560,
# Table 2.
# Mi is ours, for tiny images on a laptop.
VARIANTS = {
    "Mi": Variant(embed_dim=128, depth=4, mlp_dim=512, num_heads=4),
    "Ti": Variant(embed_dim=192, depth=12, mlp_dim=768, num_heads=3),
    "S": Variant(embed_dim=384, depth=12, mlp_dim=1536, num_heads=6),
    "B": Variant(embed_dim=768, depth=12, mlp_dim=3072, num_heads=12),
    "L": Variant(embed_dim=1024, depth=24, mlp_dim=4096, num_heads=16),
    "H": Variant(embed_dim=1280, depth=32, mlp_dim=5120, num_heads=16),
    "g": Variant(embed_dim=1408, depth=40, mlp_dim=6144, num_heads=16),
    "G": Variant(embed_dim=1664, depth=48, mlp_dim=8192, num_heads=16),
}
LONG_NAMES = {
    "mini": "Mi", "tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H",
    "giant": "g", "gigantic": "G",
}  # fmt: skip
COMMON_NAMES = (
    "ViT-Mi/4", "ViT-Mi/7", "ViT-Ti/8", "ViT-Ti/16", "ViT-S/8", "ViT-S/16", "ViT-S/32", "ViT-B/8",
    "ViT-B/16", "ViT-B/32", "ViT-L/16", "ViT-L/32", "ViT-H/14", "ViT-g/14", "ViT-G/14",
)  # fmt: skip

_NAME = re.compile(
    r"vit[-_/ ]*(?P<variant>[a-z]+?)[-_/ ]*(?:patch|p)?[-_/ ]*(?P<patch>\d+)(?:[-_/ "
    r"](?P<size>\d+))?",
    re.IGNORECASE,
)


def parse_model_name(name: str) -> dict[str, Any]:
    """Return the fields of ViTConfig that a name states.

    Args:
        name: such as `ViT-B/16`, `vit_b16` or `vit_base_patch16_384` (which states the image size).

    Raises:
        RequestError: no model has that name; the nearest known one is named.
    """
    match = _NAME.fullmatch(name.strip())
    variant = _find_variant(match["variant"]) if match else None
    if match is None or variant is None:
        raise RequestError(f"there is no model {name!r}{_suggest(name)}")
    patch_size = int(match["patch"])
    fields: dict[str, Any] = {"name": f"ViT-{variant}/{patch_size}", "patch_size": patch_size}
    if match["size"]:
        fields["image_size"] = int(match["size"])
    return fields | vars(VARIANTS[variant])


def model_config(name: str, **fields: Any) -> ViTConfig:
    """Return the full config of a named model, with further fields set.

    Raises:
        RequestError: an unknown name or field, or a bad value.
    """
    unknown = sorted(set(fields) - set(ViTConfig.__dataclass_fields__))
    if unknown:
        known = [field for field in ViTConfig.__dataclass_fields__ if field != "name"]
        raise RequestError(f"a ViT has no field {unknown[0]!r}{nearest(unknown[0], known)}")
    return ViTConfig(**parse_model_name(name) | fields)


def _find_variant(text: str) -> str | None:
    if text in ("g", "G"):
        return text
    by_folded_name = {variant.lower(): variant for variant in VARIANTS if variant.lower() != "g"}
    return (by_folded_name | LONG_NAMES).get(text.lower())


def _suggest(name: str) -> str:
    folded = re.sub(r"[-_/ ]|patch", "", name.lower())
    spellings = {re.sub(r"[-/]", "", known.lower()): known for known in COMMON_NAMES}
    hint = nearest(folded, spellings)
    for spelling, known in spellings.items():
        if f"'{spelling}'" in hint:
            return f": did you mean {known!r}?"
    return f": use one of {', '.join(COMMON_NAMES)}, with any patch size"
