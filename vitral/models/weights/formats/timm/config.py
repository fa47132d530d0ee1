"""Reading and writing of timm's `config.json`.

Source of its fields: huggingface/pytorch-image-models, `timm/models/_hub.py` and `_pretrained.py`.
"""

import dataclasses
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vitral.config.preprocessing import Preprocessing, channels_preprocessing
from vitral.config.variants import VARIANTS
from vitral.errors import ModelFileError
from vitral.models.model import Model
from vitral.models.weights.source import WeightFile

BACKBONE = "patch_embed.backbone."
"""Prefix of the names of a hybrid's ResNet."""
UNIT = r"stages\.(\d+)\.blocks\.(\d+)\."
_POOLS = {"token": "token", "avg": "gap", "map": "map"}
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "silu": "swiglu"}
_CROPS = {"center": "shorter", "squash": "squash"}
_INTERPOLATIONS = ("bilinear", "bicubic")
# SigLIP models that timm computes with the tanh GELU (`timm/models/vision_transformer.py`).
_TANH = re.compile(
    r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_siglip|vit_large_patch16_siglip\w*_512"
)
# Architectures whose tensors look like a ViT's, by a part of their names (also `eva.py`).
_ROTARY = "turns queries and keys by their places"
_UNREAD = {
    "_rpn_": "normalises after attention and MLP", "_rope_": _ROTARY, "_dinov3": _ROTARY,
}  # fmt: skip
# 16 heads, which their widths do not determine.
_ODD_HEADS = re.compile(r"vit_giantopt|vit_base_patch16_gap_224")
_log = logging.getLogger("vitral")


def arguments_of(source: WeightFile) -> Mapping[str, Any]:
    """Return the model's arguments beyond those of its architecture."""
    return source.config.get("model_args") or {} if _is_timm(source) else {}


def pool_of(source: WeightFile) -> str | None:
    """Return the stated pool by our name, or None.

    Raises:
        ModelFileError: it is not supported.
    """
    pool = arguments_of(source).get("global_pool")
    if pool is None and _is_timm(source):
        pool = source.config.get("global_pool")
    return _known(source, "global_pool", pool, _POOLS) if pool else None


def activation_of(source: WeightFile) -> str:
    """Return the activation by our name; timm's default is the exact GELU.

    Raises:
        ModelFileError: it is not supported.
    """
    stated = arguments_of(source).get("act_layer")
    if stated is None:
        return "gelu_tanh" if _TANH.match(_architecture(source)) else "gelu"
    return _known(source, "act_layer", stated, _ACTIVATIONS)


def check_architecture(source: WeightFile) -> None:
    """Reject an architecture whose tensors look like another's.

    Raises:
        ModelFileError: the architecture is not supported.
    """
    architecture = _architecture(source)
    for part, what in _UNREAD.items():
        if part in architecture:
            raise ModelFileError(
                f"{source.path} is {architecture}, which {what}: no model here does"
            )


def heads_of_architecture(source: WeightFile, embed_dim: int) -> int | None:
    """Return the number of heads that is stated, or that follows from the architecture's name.

    timm's ViTs have heads of width 64, except for some of the known variants and two others.
    """
    stated = arguments_of(source).get("num_heads")
    if stated is not None:
        return int(stated)
    architecture = _architecture(source)
    if _ODD_HEADS.match(architecture):
        return 16
    is_known = any(variant.embed_dim == embed_dim for variant in VARIANTS.values())
    if is_known or embed_dim % 64 or not architecture.startswith(("vit_", "deit", "flexivit")):
        return None
    return embed_dim // 64


def image_sizes_of(source: WeightFile) -> list[tuple[int, int]]:
    """Return the image sizes stated for the weights, the most reliable first."""
    model = source.own.get("model") if source.own else None
    stated = [
        source.stated.get("stored_image_size"),
        model.get("image_size") if isinstance(model, Mapping) else None,
        arguments_of(source).get("img_size"),
        (_pretrained(source).get("input_size") or [])[1:],
    ]
    return [size for value in stated if (size := as_size(value))]


def stated_preprocessing(source: WeightFile, usual: Preprocessing) -> Preprocessing:
    """Return the stated preprocessing, with usual values for the rest.

    Raises:
        ModelFileError: it needs something that is not supported.
    """
    stated = _pretrained(source)
    if not stated:
        return usual
    crop = stated.get("crop_mode") or "center"
    interpolation = stated.get("interpolation") or usual.interpolation
    mean = tuple(stated.get("mean") or usual.mean)
    preprocessing = dataclasses.replace(
        usual,
        resize=_known(source, "crop_mode", crop, _CROPS),
        crop_share=float(stated.get("crop_pct") or usual.crop_share),
        interpolation=_known(
            source, "interpolation", interpolation, {known: known for known in _INTERPOLATIONS}
        ),
        mean=mean,
        std=tuple(stated.get("std") or usual.std),
        channels=len(mean),
    )
    if usual.channels == preprocessing.channels:
        return preprocessing
    return channels_preprocessing(preprocessing, usual.channels)


def classes_of(source: WeightFile, *, num_classes: int) -> tuple[str, ...] | None:
    """Return the names of the outputs, if all are stated."""
    if not _is_timm(source):
        return None
    names = source.config.get("label_names") or _pretrained(source).get("label_names")
    if isinstance(names, Mapping):
        names = [names.get(str(index)) for index in range(num_classes)]
    if not isinstance(names, list) or len(names) != num_classes or None in names:
        return None
    return tuple(str(name) for name in names)


def describe(
    model: Model,
    *,
    architecture: str,
    arguments: Mapping[str, Any],
    first_conv: str,
    classifier: str | list[str],
    is_fixed_size: bool,
) -> dict[str, Any]:
    """Return the content of `config.json` with which `create_model("local-dir:...")` works.

    Args:
        model: its classes and preprocessing are stated, as far as timm can express them.
        architecture: timm's name of a model.
        arguments: those that differ from that model's defaults.
        first_conv: name of the module that reads the image.
        classifier: name of the head's module, or of both.
        is_fixed_size: whether the weights are for images of one size.
    """
    config, preprocessing = model.config, model.preprocessing
    _warn_of_preprocessing(preprocessing)
    described: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": getattr(config, "embed_dim", config.feature_dim),
        "global_pool": arguments.get("global_pool", "avg"),
    }
    if model.classes:
        described["label_names"] = list(model.classes)
    if arguments:
        described["model_args"] = dict(arguments)
    described["pretrained_cfg"] = {
        "num_classes": config.num_classes,
        "input_size": [config.in_channels, *config.image_hw],
        "fixed_input_size": is_fixed_size,
        "interpolation": "bicubic" if preprocessing.interpolation == "bicubic" else "bilinear",
        "crop_pct": preprocessing.crop_share,
        "crop_mode": "squash" if preprocessing.resize == "squash" else "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "first_conv": first_conv,
        "classifier": classifier,
    }
    return described


def _warn_of_preprocessing(preprocessing: Preprocessing) -> None:
    """Warn of differences in resizing: timm resizes with Pillow."""
    if not preprocessing.antialias or preprocessing.interpolation == "area":
        _log.warning(
            "timm resizes images with antialias, this model was trained with "
            "interpolation=%r and antialias=%s: its inputs will differ a little there",
            preprocessing.interpolation,
            preprocessing.antialias,
        )


def as_size(value: Any) -> tuple[int, int] | None:
    """Return (height, width), or None if the value is no size."""
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return None
    height, width = pair
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _is_timm(source: WeightFile) -> bool:
    return isinstance(source.config.get("architecture"), str)


def _architecture(source: WeightFile) -> str:
    return str(source.config["architecture"]) if _is_timm(source) else ""


def _pretrained(source: WeightFile) -> Mapping[str, Any]:
    """Return the section on the weights; old files have its fields at the top level."""
    if not _is_timm(source):
        return {}
    return source.config.get("pretrained_cfg") or source.config


def _known(source: WeightFile, field: str, value: Any, known: Mapping[str, str]) -> str:
    if value not in known:
        raise ModelFileError(
            f"{source.path}: its config.json states {field}={value!r}, which is not supported: "
            f"known are {', '.join(known)}"
        )
    return known[value]


def stride_of_stem(names: Iterable[str]) -> int:
    """Return the stride in pixels of the map that a ViT cuts into patches: 1 without a ResNet."""
    below = _below(names)
    stages = {match[1] for name in below if (match := re.match(UNIT, name))}
    return 4 * 2 ** max(len(stages) - 1, 0) if below else 1


def _below(names: Iterable[str]) -> list[str]:
    return [name.removeprefix(BACKBONE) for name in names if name.startswith(BACKBONE)]
