"""Hugging Face's DINOv2, with and without registers: names of tensors, and `config.json`."""

from typing import Any

import torch
from torch import Tensor

from vitral.config.vit import ViTConfig
from vitral.models.weights.formats.huggingface.vit import (
    POSITIONS,
    activation_of,
    attention_entries,
    describe_trunk,
    embedding_entries,
    infer_trunk,
)
from vitral.models.weights.mapping import SAME, Entry, Layout, Tensors, pair, vit_name
from vitral.models.weights.source import WeightFile

REGISTERS = "embeddings.register_tokens"
# Its classifier reads class token and mean of the patches; one that reads only the class token has
# zeros for the mean.
TOKEN_HEAD = Layout(
    lambda weights: weights[0][:, : weights[0].shape[1] // 2],
    lambda weight: [torch.cat([weight, torch.zeros_like(weight)], dim=1)],
)


def infer(tensors: Tensors, source: WeightFile) -> ViTConfig:
    """Infer a DINOv2 from its tensors and `config.json`."""
    registers = tensors.get(REGISTERS)
    shape, rest = infer_trunk(tensors, source, num_prefix_tokens=1)
    head = tensors.get("classifier.weight")
    is_gated = "encoder.layer.0.mlp.weights_in.weight" in tensors
    return ViTConfig(
        name=vit_name(shape, patch=rest["patch_size"]),
        **shape,
        **rest,
        num_classes=0 if head is None else len(head),
        pool="token" if head is None else "token+gap",
        num_registers=0 if registers is None else registers.shape[1],
        activation="swiglu" if is_gated else activation_of(source.config),
        norm_eps=source.config.get("layer_norm_eps", 1e-6),
        layer_scale=source.config.get("layerscale_value") or 1.0,
        # As in transformers; DINOv2's authors scale with an offset.
        position_resize="bicubic" if registers is None else "bicubic_antialias",
    )


def entries(config: ViTConfig) -> list[Entry]:
    """Return the entries of a DINOv2's tensors in a file."""
    name = "dinov2_with_registers." if config.num_registers else "dinov2."
    base = name if config.num_classes else ""
    found = [
        *embedding_entries(base),
        Entry("positions.0.table", (base + POSITIONS,), SAME),
        *pair("norm", f"{base}layernorm."),
    ]
    if config.num_registers:
        found.append(Entry("registers", (base + REGISTERS,), SAME))
    hidden, out = ("weights_in", "weights_out") if config.activation == "swiglu" else ("fc1", "fc2")
    for index in range(config.depth):
        ours, theirs = f"blocks.{index}", f"{base}encoder.layer.{index}."
        found += [
            *pair(f"{ours}.norm1", f"{theirs}norm1."),
            *attention_entries(f"{ours}.attention", theirs),
            Entry(f"{ours}.scale1.scale", (f"{theirs}layer_scale1.lambda1",), SAME),
            *pair(f"{ours}.norm2", f"{theirs}norm2."),
            *pair(f"{ours}.mlp.hidden", f"{theirs}mlp.{hidden}."),
            *pair(f"{ours}.mlp.out", f"{theirs}mlp.{out}."),
            Entry(f"{ours}.scale2.scale", (f"{theirs}layer_scale2.lambda1",), SAME),
        ]
    if config.num_classes:
        layout = TOKEN_HEAD if config.pool == "token" else SAME
        found += pair("head", "classifier.", layout=layout)
    return found


def refusal(config: ViTConfig) -> str | None:
    """Return why a model is no DINOv2 of Hugging Face, or None."""
    height, width = config.image_hw
    reasons = {
        f"has pool={config.pool!r}": config.pool not in ("token", "token+gap"),
        "has pre_logits and LayerScale": config.representation_size,
        f"has LayerScale and images of {height} x {width}, no square": height != width,
        f"has LayerScale and mlp_dim={config.mlp_dim}, no whole multiple of embed_dim="
        f"{config.embed_dim}": _mlp_ratio(config) is None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cautions(config: ViTConfig) -> list[str]:
    """Return what transformers will compute differently."""
    if config.pool == "token+gap" and not config.num_classes:
        return ["transformers' pooler_output is of the class token alone: read last_hidden_state"]
    return []


def describe(config: ViTConfig) -> dict[str, Any]:
    """Return the content of a DINOv2's `config.json`."""
    kind, model_type = "Dinov2", "dinov2"
    extra: dict[str, Any] = {"use_mask_token": False}
    if config.num_registers:
        kind, model_type = "Dinov2WithRegisters", "dinov2_with_registers"
        extra = {"num_register_tokens": config.num_registers}
    name = f"{kind}ForImageClassification" if config.num_classes else f"{kind}Model"
    return {
        "architectures": [name],
        "model_type": model_type,
        **describe_trunk(config),
        "mlp_ratio": _mlp_ratio(config),
        "layerscale_value": config.layer_scale,
        "use_swiglu_ffn": config.activation == "swiglu",
        **extra,
    }


def _mlp_ratio(config: ViTConfig) -> int | None:
    """Return the integer ratio from which transformers computes `mlp_dim`, if there is one.

    For a gated MLP it takes two thirds of the product, rounded up to a multiple of 8.
    """
    for ratio in range(1, 33):
        width = config.embed_dim * ratio
        if config.activation == "swiglu":
            width = (int(width * 2 / 3) + 7) // 8 * 8
        if width == config.mlp_dim:
            return ratio
    return None


def is_dinov2(tensors: dict[str, Tensor]) -> bool:
    """Return whether plain names are those of a DINOv2."""
    return "encoder.layer.0.layer_scale1.lambda1" in tensors
