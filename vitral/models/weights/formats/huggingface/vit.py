"""Hugging Face's ViT, DeiT and the encoder of ViT-MAE: names of tensors, and `config.json`.

transformers 5 has other names in memory, but its files keep those of version 4.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitral.config.vit import ViTConfig
from vitral.errors import ModelFileError
from vitral.models.weights.mapping import (
    SAME,
    STACKED,
    Entry,
    Layout,
    Tensors,
    assume_depth,
    check_depth,
    heads_of,
    pair,
    side_of,
    vit_name,
)
from vitral.models.weights.source import WeightFile

KERNEL = "embeddings.patch_embeddings.projection.weight"
POSITIONS = "embeddings.position_embeddings"
DISTILLATION = "embeddings.distillation_token"
TANH_ACTIVATIONS = (
    "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate",
)  # fmt: skip
EXACT_ACTIVATIONS = ("gelu", "gelu_python")
_WRITTEN_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "swiglu": "gelu"}


def _without_second_row(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensors[0][:, :1], tensors[0][:, 2:]], dim=1)


def _with_second_row(table: Tensor) -> list[Tensor]:
    return [torch.cat([table[:, :1], torch.zeros_like(table[:, :1]), table[:, 1:]], dim=1)]


# DeiT's table has a row for the distillation token, which we add to the token itself.
DISTILLED_TABLE = Layout(_without_second_row, _with_second_row)
# Two classifiers whose logits are averaged: halving and doubling are exact.
AVERAGED_WEIGHT = Layout(
    lambda weights: torch.cat(weights, dim=1) / 2,
    lambda weight: [part * 2 for part in weight.chunk(2, dim=1)],
)
AVERAGED_BIAS = Layout(
    lambda biases: (biases[0] + biases[1]) / 2, lambda bias: [bias, bias.clone()]
)


def canonical(tensors: Tensors) -> dict[str, Tensor]:
    """Return tensors without the base's prefix; adds missing qkv biases, converts DeiT's row."""
    found = dict(tensors)
    weights = [name for name in found if name.endswith(".attention.attention.query.weight")]
    biases = [name for name in found if name.endswith(".attention.attention.query.bias")]
    if weights and not biases:
        for name in weights:
            for part in ("query", "key", "value"):
                bias = name.replace("query.weight", f"{part}.bias")
                found[bias] = found[name].new_zeros(len(found[name]))
    if DISTILLATION in found and POSITIONS in found and found[POSITIONS].ndim == 3:
        # A token without a position, and one more row than there are positions.
        found[DISTILLATION] = found[DISTILLATION] + found[POSITIONS][:, 1:2]
    return found


def infer(tensors: Tensors, source: WeightFile) -> ViTConfig:
    """Infer a ViT or DeiT from its tensors and `config.json`."""
    distilled = DISTILLATION in tensors
    shape, rest = infer_trunk(tensors, source, num_prefix_tokens=2 if distilled else 1)
    head = tensors.get("classifier.weight", tensors.get("cls_classifier.weight"))
    num_classes = 0 if head is None else len(head)
    is_teacher = "cls_classifier.weight" in tensors
    return ViTConfig(
        name=vit_name(shape, patch=rest["patch_size"]),
        **shape,
        **rest,
        num_classes=num_classes,
        pool="token+register" if is_teacher else "token",
        num_registers=int(distilled),
        representation_size=0 if num_classes else _pooler_width(tensors, source),
        activation=activation_of(source.config),
        norm_eps=source.config.get("layer_norm_eps", 1e-12),
        position_resize="bicubic",
    )


def infer_trunk(
    tensors: Tensors, source: WeightFile, *, num_prefix_tokens: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return widths, depth, patch size, image size and channels, which all types share.

    Raises:
        ModelFileError: a tensor that determines them is missing.
    """
    block = "encoder.layer.0."
    try:
        embed_dim, channels, height, width = tensors[KERNEL].shape
        num_positions = tensors[POSITIONS].shape[1]
        if f"{block}intermediate.dense.weight" in tensors:
            mlp_dim = len(tensors[f"{block}intermediate.dense.weight"])
        elif f"{block}mlp.weights_in.weight" in tensors:
            mlp_dim = len(tensors[f"{block}mlp.weights_in.weight"]) // 2
        else:
            mlp_dim = len(tensors[f"{block}mlp.fc1.weight"])
    except KeyError as error:
        raise ModelFileError(f"{source.path} has no tensor {error.args[0]}") from None
    heads = source.config.get("num_attention_heads")
    depth = len({name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")})
    check_depth(depth, source.config.get("num_hidden_layers"), path=source.path)
    shape = {
        "embed_dim": embed_dim,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_heads": heads or heads_of(embed_dim, source),
    }
    if not source.config:
        assume_depth(shape, source)
        source.assume("the exact GELU and the norms' epsilon: there is no config.json beside it")
    stated = dict(source.stated)
    if "image_size" in source.config:
        size = source.config["image_size"]
        stated["stored_image_size"] = tuple(size) if isinstance(size, list) else size
    image_size = side_of(
        num_positions - num_prefix_tokens, (height, width), stated, path=source.path
    )
    return shape, {
        "patch_size": (height, width), "image_size": image_size, "in_channels": channels,
    }  # fmt: skip


def activation_of(config: Mapping[str, Any]) -> str:
    """Return our name of an activation.

    Raises:
        ModelFileError: it is no GELU.
    """
    activation = config.get("hidden_act", "gelu")
    if activation in EXACT_ACTIVATIONS:
        return "gelu"
    if activation in TANH_ACTIVATIONS:
        return "gelu_tanh"
    raise ModelFileError(
        f"config.json has hidden_act={activation!r}: only GELU can be loaded, as one of "
        f"{', '.join((*EXACT_ACTIVATIONS, *TANH_ACTIVATIONS))}"
    )


def _pooler_width(tensors: Tensors, source: WeightFile) -> int:
    """Return the width of `pooler`, which is our pre_logits where it has a tanh."""
    weight = tensors.get("pooler.dense.weight")
    act = source.config.get("pooler_act", "tanh")
    if weight is None or (act != "tanh" and source.stated.get("representation_size") == 0):
        return 0
    if act != "tanh":
        raise ModelFileError(
            f"config.json has pooler_act={act!r}, and a pooler can only be loaded with tanh: "
            "leave it out by representation_size=0"
        )
    return len(weight)


def entries(config: ViTConfig) -> list[Entry]:
    """Return the entries of a ViT's or DeiT's tensors in a file."""
    is_distilled = bool(config.num_registers)
    base = ("deit." if is_distilled else "vit.") if config.num_classes else ""
    table = DISTILLED_TABLE if is_distilled else SAME
    found = [
        *embedding_entries(base),
        Entry("positions.0.table", (base + POSITIONS,), table),
        *pair("norm", f"{base}layernorm."),
    ]
    if is_distilled:
        found.append(Entry("registers", (base + DISTILLATION,), SAME))
    for index in range(config.depth):
        ours, theirs = f"blocks.{index}", f"{base}encoder.layer.{index}."
        found += [
            *pair(f"{ours}.norm1", f"{theirs}layernorm_before."),
            *attention_entries(f"{ours}.attention", theirs),
            *pair(f"{ours}.norm2", f"{theirs}layernorm_after."),
            *pair(f"{ours}.mlp.hidden", f"{theirs}intermediate.dense."),
            *pair(f"{ours}.mlp.out", f"{theirs}output.dense."),
        ]
    if config.representation_size:
        found += pair("pre_logits", "pooler.dense.")
    return [*found, *_head(config)]


def _head(config: ViTConfig) -> list[Entry]:
    if not config.num_classes:
        return []
    if config.pool == "token":
        return pair("head", "classifier.")
    names = ("cls_classifier", "distillation_classifier")
    return [
        Entry("head.weight", tuple(f"{name}.weight" for name in names), AVERAGED_WEIGHT),
        Entry("head.bias", tuple(f"{name}.bias" for name in names), AVERAGED_BIAS),
    ]


def embedding_entries(base: str) -> list[Entry]:
    """Return the entries of class token and patches."""
    return [
        Entry("cls_token", (f"{base}embeddings.cls_token",), SAME),
        *pair("embedding", f"{base}embeddings.patch_embeddings.projection."),
    ]


def attention_entries(ours: str, theirs: str) -> list[Entry]:
    """Return the entries of a block's attention."""
    parts = [f"{theirs}attention.attention.{part}." for part in ("query", "key", "value")]
    return [
        Entry(f"{ours}.qkv.weight", tuple(f"{part}weight" for part in parts), STACKED),
        Entry(f"{ours}.qkv.bias", tuple(f"{part}bias" for part in parts), STACKED),
        *pair(f"{ours}.out", f"{theirs}attention.output.dense."),
    ]


def refusal(config: ViTConfig) -> str | None:
    """Return why a model is no ViT or DeiT of Hugging Face, or None."""
    reasons = {
        "has a gated MLP without LayerScale": config.activation == "swiglu",
        f"has pool={config.pool!r}": config.pool not in ("token", "token+register"),
        f"has {config.num_registers} registers without LayerScale": config.num_registers > 1,
        "has pre_logits before its head": config.representation_size and config.num_classes,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cautions(config: ViTConfig) -> list[str]:
    """Return what transformers will compute differently."""
    if config.num_classes:
        return []
    if config.pool == "token+register":
        return ["transformers' pooler_output is of the class token alone: read last_hidden_state"]
    if not config.representation_size:
        return [
            "transformers' AutoModel adds a pooler of random weights: read last_hidden_state[:, 0]"
        ]
    return []


def describe(config: ViTConfig) -> dict[str, Any]:
    """Return the content of a ViT's or DeiT's `config.json`."""
    kind = "DeiT" if config.num_registers else "ViT"
    name = f"{kind}ForImageClassification" if config.num_classes else f"{kind}Model"
    if config.num_classes and config.pool == "token+register":
        name += "WithTeacher"
    return {
        "architectures": [name],
        "model_type": kind.lower(),
        **describe_trunk(config),
        "intermediate_size": config.mlp_dim,
        "encoder_stride": config.patch_hw[0],
        "pooler_output_size": config.representation_size or config.embed_dim,
        "pooler_act": "tanh",
    }


def describe_trunk(config: ViTConfig) -> dict[str, Any]:
    """Return the content of `config.json` that all types share."""
    return {
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "hidden_act": _WRITTEN_ACTIVATIONS[config.activation],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": config.norm_eps,
        "image_size": _side(config.image_hw),
        "patch_size": _side(config.patch_hw),
        "num_channels": config.in_channels,
        "qkv_bias": True,
    }


def _side(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)
