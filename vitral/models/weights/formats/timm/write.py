"""Which models timm can express, and the `config.json` with which it builds them."""

from typing import Any

from vitral.config.model import ModelConfig
from vitral.config.variants import VARIANTS
from vitral.config.vit import ViTConfig
from vitral.models.model import Model
from vitral.models.weights.formats.timm import resnet as timm_resnet
from vitral.models.weights.formats.timm.config import BACKBONE, describe
from vitral.models.weights.formats.timm.positions import leaves_out_prefix
from vitral.models.weights.formats.timm.resnet import convention_cautions

_POOLS = {"gap": "avg", "map": "map"}
# The variants and patch sizes that timm has a name for; others are built from its base.
_NAMED = {
    "Ti": ("tiny", (16,)), "S": ("small", (8, 16, 32)), "B": ("base", (8, 16, 32)),
    "L": ("large", (14, 16, 32)), "H": ("huge", (14,)), "g": ("giant", (14,)),
    "G": ("gigantic", (14,)),
}  # fmt: skip
_BASE, _DISTILLED = "vit_base_patch16_224", "deit_base_distilled_patch16_224"
# A gated MLP is a class in timm, which JSON can't name.
_GATED = "vit_giant_patch14_dinov2"
# By the stages of the hybrid's ResNet.
_HYBRIDS = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}


def refusal(config: ModelConfig) -> str | None:
    """Return why timm can't express a model as a ViT, or None."""
    if not isinstance(config, ViTConfig):
        return timm_resnet.refusal(config) or "is a ResNet"
    stem, is_distilled = config.resnet, config.pool == "token+register"
    reasons = {
        "has axial attention": config.attention == "axial",
        f"has position={config.position!r}": config.position not in ("1d", "none"),
        f"has position_at={config.position_at!r}": config.position_at != "stem",
        "has pool='token+gap'": config.pool == "token+gap",
        f"has pool='token+register' and {config.num_registers} registers": is_distilled
        and config.num_registers > 1,
        "has pool='token+register' and no positions": is_distilled and config.position == "none",
        "has pool='token+register' and a norm after it": is_distilled and config.norm_pooled,
        "has a layer before its head (representation_size), which timm drops without a word": (
            config.representation_size > 0
        ),
        "has a gated MLP in its attention pooling": config.pool == "map"
        and config.activation == "swiglu",
        "has a ResNet of version v2 below it": stem is not None and stem.version != "v1",
        "has a gain in its ResNet's root": stem is not None and stem.root_gain,
        "has a ResNet with padding='fixed' below it": stem is not None and stem.padding == "fixed",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cautions(config: ModelConfig) -> list[str]:
    """Return what timm computes differently with the tensors alone."""
    assert isinstance(config, ViTConfig)
    found = convention_cautions(config.resnet) if config.resnet else []
    if config.activation == "gelu_tanh":
        found.append(
            "timm computes the exact GELU unless act_layer='gelu_tanh' is stated, as config.json "
            "in a folder does: logits differ by about 1e-3"
        )
    if config.norm_eps != 1e-6:
        found.append(f"timm adds 1e-6 in norms, this model {config.norm_eps:g}")
    if config.pool == "map" and config.num_prefix_tokens:
        found.append(
            "timm's attention pooling leaves out class token and registers unless "
            "pool_include_prefix=True is stated, as config.json in a folder does"
        )
    if config.pool == "token+register" and not config.num_classes:
        found.append("timm's features are the mean of both tokens, this model's are both")
    if _architecture(config) is None:
        found.append(
            f"timm has no name for {config.name}, so no config.json is written: build it there as "
            "VisionTransformer and load model.safetensors"
        )
    return found


def side_files(model: Model) -> dict[str, Any]:
    """Return `config.json`, if timm has a name for such a model."""
    config = model.config
    assert isinstance(config, ViTConfig)
    architecture = _architecture(config)
    if architecture is None:
        return {}
    stem = "" if config.resnet is None or not config.resnet.stages else "stem."
    described = describe(
        model,
        architecture=architecture,
        arguments=_arguments(model, config, architecture=architecture),
        first_conv=f"{BACKBONE}{stem}conv" if config.resnet else "patch_embed.proj",
        classifier=["head", "head_dist"] if config.pool == "token+register" else "head",
        is_fixed_size=True,
    )
    return {"config.json": described}


def _architecture(config: ViTConfig) -> str | None:
    """Return timm's name of the model, or of one that arguments can turn into it, or None."""
    is_gated, is_distilled = config.activation == "swiglu", config.pool == "token+register"
    if config.resnet is not None:
        known = config.resnet.width_factor == 1 and not (is_gated or is_distilled)
        return _HYBRIDS.get(config.resnet.stages) if known else None
    if is_gated:
        return None if is_distilled else _GATED
    if is_distilled:
        return _DISTILLED
    for letter, (name, patches) in _NAMED.items():
        shape = vars(VARIANTS[letter])
        is_named = all(getattr(config, field) == value for field, value in shape.items())
        if is_named and config.patch_hw in [(patch, patch) for patch in patches]:
            return f"vit_{name}_patch{config.patch_hw[0]}_224"
    return _BASE


def _arguments(model: Model, config: ViTConfig, *, architecture: str) -> dict[str, Any]:
    """Return all arguments of the model, so none depends on the architecture's defaults."""
    arguments: dict[str, Any] = {
        "img_size": list(config.image_hw),
        "patch_size": list(config.patch_hw),
        "in_chans": config.in_channels,
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": _mlp_ratio(config),
        "global_pool": _POOLS.get(config.pool, "token"),
        "class_token": bool(config.class_token),
        "fc_norm": config.norm_pooled,
        "qk_norm": config.qk_norm,
    }
    if config.activation == "gelu_tanh":
        arguments["act_layer"] = "gelu_tanh"
    if config.layer_scale is not None or architecture == _GATED:
        # 0: none.
        arguments["init_values"] = config.layer_scale or 0.0
    if config.position == "none":
        arguments["pos_embed"] = "none"
    elif leaves_out_prefix(config, model.state_dict()["positions.0.table"]):
        arguments["no_embed_class"] = True
    if config.num_registers and config.pool != "token+register":
        arguments["reg_tokens"] = config.num_registers
    if config.pool == "map" and config.num_prefix_tokens:
        arguments["pool_include_prefix"] = True
    return arguments


def _mlp_ratio(config: ViTConfig) -> float:
    """Return a ratio that gives the width: timm rounds its product with `embed_dim` down."""
    width = config.mlp_dim * (2 if config.activation == "swiglu" else 1)
    ratio = width / config.embed_dim
    return ratio if int(config.embed_dim * ratio) == width else (width + 0.5) / config.embed_dim
