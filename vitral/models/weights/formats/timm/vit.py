"""Reading and writing of timm's ViTs, hybrids and distilled DeiTs.

Source: huggingface/pytorch-image-models, `timm/models/vision_transformer.py`, `deit.py` and
`vision_transformer_hybrid.py`.
"""

import re
from typing import Any

import torch
from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing, default_preprocessing, imagenet_preprocessing
from vitral.config.vit import ViTConfig
from vitral.errors import ModelFileError
from vitral.models.weights.formats.timm.config import (
    BACKBONE,
    activation_of,
    arguments_of,
    check_architecture,
    classes_of,
    heads_of_architecture,
    pool_of,
    stated_preprocessing,
)
from vitral.models.weights.formats.timm.positions import (
    image_size,
    positions_layout,
    with_own_positions,
)
from vitral.models.weights.formats.timm.resnet import infer_stem, trunk_entries
from vitral.models.weights.formats.timm.write import cautions, refusal, side_files
from vitral.models.weights.mapping import (
    SAME,
    Entry,
    Layout,
    Tensors,
    assume_depth,
    check_depth,
    heads_of,
    pair,
    vit_name,
)
from vitral.models.weights.source import WeightFile

__all__ = [
    "NAME", "SUFFIX", "canonical", "cautions", "classes", "entries", "infer", "is_spare",
    "preprocessing", "recognises", "refusal", "side_files",
]  # fmt: skip
NAME = "timm"
SUFFIX = ".safetensors"
LAYER_SCALE_START = 1e-5
"""Used if `config.json` does not state it; it has no effect once there are weights."""
_NEEDED = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight")
# Features of other models of timm, by a tensor that identifies them.
_UNREAD = {
    "norm_pre.weight": "a norm before its blocks, as CLIP's",
    "patch_embed.norm.weight": "a norm in its patch embedding",
    "blocks.0.attn.lambda_q1": "differential attention",
    "patch_embed.backbone.stages.0.blocks.0.norm1.running_mean": "batch norm",
}


def recognises(source: WeightFile) -> bool:
    """Return whether weights have the names of a ViT of timm."""
    return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(source.tensors)


def canonical(source: WeightFile) -> dict[str, Tensor]:
    """Return the tensors under timm's current names, with positions converted to ours.

    A missing bias of queries, keys and values (`qkv_bias=False`) becomes zeros.
    """
    named = {
        re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name): tensor
        for name, tensor in source.tensors.items()
    }
    if not any(name.endswith(".attn.qkv.bias") for name in named):
        named |= {
            name.replace(".weight", ".bias"): tensor.new_zeros(tensor.shape[:1])
            for name, tensor in named.items()
            if name.endswith(".attn.qkv.weight")
        }
    return with_own_positions(named, source)


def infer(source: WeightFile) -> ViTConfig:
    """Infer the architecture from the shapes, and from `config.json` what they do not determine.

    Raises:
        ModelFileError: it is no ViT, one of an unsupported kind, or the number of heads or the
            image size is unknown.
    """
    tensors, path = source.tensors, source.path
    check_architecture(source)
    for name, what in _UNREAD.items():
        if name in tensors:
            raise ModelFileError(f"{path} has {what} ({name}), which no model here has")
    # Few models have no positions; unless that is stated, the table counts as missing.
    has_positions = arguments_of(source).get("pos_embed") not in ("none", "")
    missing = [name for name in (*_NEEDED, *["pos_embed"] * has_positions) if name not in tensors]
    if missing:
        raise ModelFileError(f"{path} is no ViT of timm: it has no {missing[0]}")
    kernel, hidden, out = (tensors[name] for name in _NEEDED)
    embed_dim, channels, *patch = kernel.shape
    stem = infer_stem(tensors)
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    check_depth(depth, arguments_of(source).get("depth"), path=path)
    shape: dict[str, Any] = {
        "embed_dim": embed_dim, "depth": depth, "mlp_dim": out.shape[1],
        "num_heads": (
            (None if source.stated.get("num_heads") else heads_of_architecture(source, embed_dim))
            or heads_of(embed_dim, source)
        ),
    }  # fmt: skip
    if "depth" not in arguments_of(source):
        assume_depth(shape, source)
    is_gated = hidden.shape[0] == 2 * out.shape[1]
    start = arguments_of(source).get("init_values") or LAYER_SCALE_START
    return ViTConfig(
        name=vit_name(shape, patch=(patch[0], patch[1]), stem=stem),
        **shape,
        patch_size=(patch[0], patch[1]),
        image_size=image_size(source),
        in_channels=stem.in_channels if stem else channels,
        num_classes=_num_classes(tensors),
        pool=_pool(source),
        representation_size=len(tensors.get("pre_logits.fc.bias", ())),
        activation="swiglu" if is_gated else activation_of(source),
        position="1d" if has_positions else "none",
        position_resize="bicubic_antialias" if has_positions else "bilinear_corners",
        class_token="cls_token" in tensors,
        num_registers=_num_registers(tensors),
        qk_norm="blocks.0.attn.q_norm.weight" in tensors,
        layer_scale=start if "blocks.0.ls1.gamma" in tensors else None,
        norm_pooled="fc_norm.weight" in tensors,
        resnet=stem,
    )


def entries(config: ModelConfig) -> list[Entry]:
    """Return the entries of a model's tensors."""
    assert isinstance(config, ViTConfig)
    projection = "embedding.projection" if config.resnet else "embedding"
    found = [
        *pair(projection, "patch_embed.proj."),
        *pair("norm", "fc_norm." if config.norm_pooled else "norm."),
    ]
    if config.resnet:
        found += trunk_entries("embedding.resnet", BACKBONE, config.resnet)
    if config.class_token:
        found.append(Entry("cls_token", ("cls_token",), SAME))
    if config.num_registers:
        token = "dist_token" if config.pool == "token+register" else "reg_token"
        found.append(Entry("registers", (token,), SAME))
    if config.position == "1d":
        found.append(Entry("positions.0.table", ("pos_embed",), positions_layout(config)))
    for index in range(config.depth):
        found += _block(f"blocks.{index}", f"blocks.{index}.", config)
    if config.pool == "map":
        found += _map_head(config)
    if config.representation_size:
        found += pair("pre_logits", "pre_logits.fc.")
    return [*found, *_head(config)]


def preprocessing(source: WeightFile, config: ModelConfig) -> Preprocessing:
    """Return the preprocessing in `config.json`, else timm's default for ViTs or DeiTs."""
    if "dist_token" in source.tensors:
        usual = imagenet_preprocessing(config, interpolation="bicubic", crop_share=0.9)
    else:
        usual = default_preprocessing(
            config.image_hw, channels=config.in_channels, crop_share=0.9, interpolation="bicubic"
        )
    if not source.config:
        source.assume(
            "the preprocessing and conventions of timm's own ViTs: there is no config.json beside "
            "it. Weights of DeiT III, MAE, DINO or CLIP with these names want others: "
            "format='mae' or 'dino' reads them so"
        )
    return stated_preprocessing(source, usual)


def classes(source: WeightFile) -> tuple[str, ...] | None:
    """Return the names that `config.json` states, or None."""
    return classes_of(source, num_classes=_num_classes(source.tensors))


def is_spare(name: str) -> bool:
    """Return False: every tensor belongs to the model."""
    return False


def _num_classes(tensors: Tensors) -> int:
    return len(tensors.get("head.bias", ()))


def _num_registers(tensors: Tensors) -> int:
    return sum(tensors[name].shape[1] for name in ("dist_token", "reg_token") if name in tensors)


def _pool(source: WeightFile) -> str:
    """Return the pool: stated, or guessed from the tensors."""
    tensors = source.tensors
    if "dist_token" in tensors:
        return "token+register"
    if "attn_pool.latent" in tensors:
        if {"cls_token", "reg_token"} & set(tensors) and not arguments_of(source).get(
            "pool_include_prefix"
        ):
            raise ModelFileError(
                f"{source.path} pools its patches by attention and leaves out a class token or "
                "registers, which no model here does"
            )
        return "map"
    averages = "fc_norm.weight" in tensors or "cls_token" not in tensors
    return pool_of(source) or ("gap" if averages else "token")


def _block(ours: str, theirs: str, config: ViTConfig) -> list[Entry]:
    found = [
        *pair(f"{ours}.norm1", f"{theirs}norm1."),
        *pair(f"{ours}.attention.qkv", f"{theirs}attn.qkv."),
        *pair(f"{ours}.attention.out", f"{theirs}attn.proj."),
        *pair(f"{ours}.norm2", f"{theirs}norm2."),
        *pair(f"{ours}.mlp.hidden", f"{theirs}mlp.fc1."),
        *pair(f"{ours}.mlp.out", f"{theirs}mlp.fc2."),
    ]
    if config.qk_norm:
        found += pair(f"{ours}.attention.query_norm", f"{theirs}attn.q_norm.")
        found += pair(f"{ours}.attention.key_norm", f"{theirs}attn.k_norm.")
    if config.layer_scale is not None:
        found.append(Entry(f"{ours}.scale1.scale", (f"{theirs}ls1.gamma",), SAME))
        found.append(Entry(f"{ours}.scale2.scale", (f"{theirs}ls2.gamma",), SAME))
    return found


def _map_head(config: ViTConfig) -> list[Entry]:
    ours, theirs = "attention_pool", "attn_pool."
    found = [Entry(f"{ours}.probe", (f"{theirs}latent",), SAME)]
    for part in ("weight", "bias"):
        names = (f"{theirs}q.{part}", f"{theirs}kv.{part}")
        found.append(Entry(f"{ours}.attention.qkv.{part}", names, _QUERY_AND_KEY_VALUE))
    return [
        *found,
        *pair(f"{ours}.attention.out", f"{theirs}proj."),
        *pair(f"{ours}.norm", f"{theirs}norm."),
        *pair(f"{ours}.mlp.hidden", f"{theirs}mlp.fc1."),
        *pair(f"{ours}.mlp.out", f"{theirs}mlp.fc2."),
    ]


def _head(config: ViTConfig) -> list[Entry]:
    if not config.num_classes:
        return []
    if config.pool != "token+register":
        return pair("head", "head.")
    return [
        Entry("head.weight", ("head.weight", "head_dist.weight"), _MEAN_OF_HEADS),
        Entry("head.bias", ("head.bias", "head_dist.bias"), _MEAN_OF_BIASES),
    ]


_QUERY_AND_KEY_VALUE = Layout(
    torch.cat, lambda t: list(t.split([len(t) // 3, len(t) - len(t) // 3]))
)
# A distilled DeiT's logits are the mean of two heads, on class token and distillation token: here
# one head on both concatenated. Halving and doubling are exact.
_MEAN_OF_HEADS = Layout(
    lambda heads: torch.cat([head / 2 for head in heads], dim=1),
    lambda head: [part * 2 for part in head.chunk(2, dim=1)],
)
_MEAN_OF_BIASES = Layout(
    lambda biases: (biases[0] + biases[1]) / 2, lambda bias: [bias, bias.clone()]
)
