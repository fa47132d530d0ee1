"""The grammar of model names.

`ViT-B/16` = variant B, patches of 16 pixels; `R50x3` = a BiT ResNet of 50 layers, three times as
wide; `R50x1+ViT-B/16` = a hybrid whose ResNet shrinks the image 16 times; `AxialViT-B/32`;
`AxialResNet50s`. Case and separators do not matter, long names and timm's are understood
(`vit_b16`, `vit_base_patch16_224`, `resnetv2_50x1_bit`); only g and G are told apart by case.
"""

import re
from typing import Any

from vitral.config.model import FAMILIES, ModelConfig, family_of
from vitral.config.resnet import V1_FIELDS, AxialResNetConfig, ResNetConfig
from vitral.config.variants import (
    AXIAL_STAGES,
    AXIAL_WIDTHS,
    COMMON_NAMES,
    LONG_NAMES,
    RESNET_STAGES,
    VARIANTS,
)
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError, nearest

_SEP = r"[-_/ ]*"
_VARIANT = rf"(?P<variant>[a-z]+?|so400m){_SEP}"
_SIZE = r"(?:[-_/ ](?P<size>\d+))?"
_PATTERNS = {
    "vit": rf"(?P<axial>axial{_SEP})?vit{_SEP}{_VARIANT}(?:patch|p)?{_SEP}(?P<patch>\d+){_SIZE}",
    "bit": rf"(?:bit{_SEP}(?:[sml]{_SEP})?)?r(?P<layers>\d+)x(?P<width>\d+(?:\.\d+)?)",
    "timm_bit": r"resnetv2_(?P<layers>\d+)x(?P<width>\d+)_bit",
    "hybrid": rf"r(?P<layers>\d*)(?:x(?P<width>\d+(?:\.\d+)?))?(?:{_SEP}\+{_SEP}|_)"
    rf"(?:vit{_SEP})?{_VARIANT}(?P<patch>\d+){_SIZE}",
    "timm_hybrid": rf"vit_{_VARIANT}r(?P<layers>\d*)_s(?P<patch>\d+)(?:_p8)?{_SIZE}",
    "axial_resnet": rf"axial{_SEP}(?:resnet{_SEP})?(?P<layers>\d+){_SEP}(?P<letter>[sml]?)",
}


def parse_model_name(name: str) -> dict[str, Any]:
    """Return the fields of the config that a name states.

    Args:
        name: such as `ViT-B/16`, `vit_base_patch16_384` (which states the image size), `R152x4` or
            `R50x1+ViT-L/32`.

    Raises:
        RequestError: no model has that name; the nearest known one is named.
    """
    for family, pattern in _PATTERNS.items():
        match = re.fullmatch(pattern, name.strip(), re.IGNORECASE)
        fields = _READERS[family](match) if match else None
        if match is not None and fields is not None:
            size = match.groupdict().get("size")
            return fields | ({"image_size": int(size)} if size else {})
    raise RequestError(f"there is no model {name!r}{_suggest(name)}")


def model_config(name: str, **fields: Any) -> ModelConfig:
    """Return the full config of a named model, with other fields set.

    Raises:
        RequestError: an unknown name or field, or a bad value.
    """
    stated = parse_model_name(name)
    family = family_of(stated)
    unknown = sorted(set(fields) - set(family.__dataclass_fields__))
    if unknown:
        known = [field for field in family.__dataclass_fields__ if field != "name"]
        raise RequestError(
            f"a {_KINDS[family]} has no field {unknown[0]!r}{nearest(unknown[0], known)}"
        )
    if fields.get("version") == "v1":
        stated |= V1_FIELDS
    return family(**stated | fields)


def _vit(match: re.Match[str]) -> dict[str, Any] | None:
    variant = _find_variant(match["variant"])
    if variant is None:
        return None
    patch_size = int(match["patch"])
    fields = {"name": f"ViT-{variant}/{patch_size}", "patch_size": patch_size}
    if match["axial"]:
        # The paper does not say how a class token takes part in axial attention: the mean over
        # the patches needs none.
        fields |= {"name": f"Axial{fields['name']}", "attention": "axial", "pool": "gap"}
    return fields | vars(VARIANTS[variant])


def _bit(match: re.Match[str]) -> dict[str, Any] | None:
    stages = RESNET_STAGES.get(int(match["layers"]))
    if stages is None:
        return None
    width = float(match["width"])
    return {"name": f"R{match['layers']}x{width:g}", "stages": stages, "width_factor": width}


def _hybrid(match: re.Match[str]) -> dict[str, Any] | None:
    variant, ratio = _find_variant(match["variant"]), int(match["patch"])
    stages = _hybrid_stages(match["layers"], ratio)
    if variant is None or stages is None:
        return None
    resnet = f"R{match['layers']}"
    width = float(match.groupdict().get("width") or 1)
    # The paper writes R50x1+ViT-B/16, AugReg R26+S/32.
    if match["layers"] not in ("", "26") or width != 1:
        name = f"{resnet}x{width:g}+ViT-{variant}/{ratio}"
    else:
        name = f"{resnet}+{variant}/{ratio}"
    stem = ResNetConfig(
        name=f"{resnet}x{width:g}" if stages else resnet, stages=stages, width_factor=width,
        num_classes=0,
        **V1_FIELDS,  # type: ignore[arg-type]
    )  # fmt: skip
    # R+Ti/16 has the root alone, which quarters the image, and patches of 8: its authors counted
    # the root as a halving.
    patch_size = 1 if stages else ratio // 2
    return {"name": name, "patch_size": patch_size, "resnet": stem} | vars(VARIANTS[variant])


def _hybrid_stages(layers: str, ratio: int) -> tuple[int, ...] | None:
    """Return a hybrid's stages; at stride 16 the fourth stage's units move to the third."""
    if not layers:
        return () if ratio % 2 == 0 else None
    stages = RESNET_STAGES.get(int(layers))
    if stages is None or ratio not in (16, 32):
        return None
    return stages if ratio == 32 else (*stages[:2], stages[2] + stages[3])


def _axial_resnet(match: re.Match[str]) -> dict[str, Any] | None:
    stages = AXIAL_STAGES.get(int(match["layers"]))
    if stages is None:
        return None
    letter = match["letter"].lower() or "s"
    return {
        "name": f"AxialResNet{match['layers']}{letter}",
        "stages": stages,
        "width_factor": AXIAL_WIDTHS[letter],
        "num_groups": 8,
    }


_READERS = {
    "vit": _vit,
    "bit": _bit,
    "timm_bit": _bit,
    "hybrid": _hybrid,
    "timm_hybrid": _hybrid,
    "axial_resnet": _axial_resnet,
}
_KINDS: dict[type[ModelConfig], str] = {
    ViTConfig: "ViT",
    ResNetConfig: "ResNet",
    AxialResNetConfig: "AxialResNet",
}
assert set(_KINDS) == set(FAMILIES.values())


def _find_variant(text: str) -> str | None:
    if text in ("g", "G"):
        return text
    by_folded_name = {variant.lower(): variant for variant in VARIANTS if variant.lower() != "g"}
    return (by_folded_name | LONG_NAMES).get(text.lower())


def _suggest(name: str) -> str:
    folded = _fold(name)
    spellings = {_fold(known): known for known in COMMON_NAMES}
    hint = nearest(folded, spellings)
    for spelling, known in spellings.items():
        if f"'{spelling}'" in hint:
            return f": did you mean {known!r}?"
    return f": use one of {', '.join(COMMON_NAMES)}, with any patch size"


def _fold(name: str) -> str:
    return re.sub(r"[-_/ +]|patch", "", name.lower())
