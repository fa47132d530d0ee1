"""The `.npz` files of the paper's authors: ViT, hybrids (google-research/vision_transformer).

Also big_vision's names of the same, its attention-pooling head and its ResNet v1.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing
from vitral.config.resnet import V1_FIELDS, ResNetConfig
from vitral.config.vit import ViTConfig
from vitral.errors import ModelFileError
from vitral.models.model import Model
from vitral.models.weights.mapping import (
    FLAX_CONV,
    FLAX_DENSE,
    FLAX_GROUP_NORM,
    SAME,
    Entry,
    Tensors,
    assume_depth,
    flax_out_kernel,
    flax_qkv_biases,
    flax_qkv_kernels,
    name_of,
    pair,
    resnet_shape,
    side_of,
    stem_name,
    vit_name,
)
from vitral.models.weights.source import WeightFile

NAME = "official"
SUFFIX = ".npz"
POSITIONS = "Transformer/posembed_input/pos_embedding"
# The names of 2020, as in the released files, and those of later code.
_RELEASED_NAMES = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}


def recognises(source: WeightFile) -> bool:
    """Return whether weights have the names of an official ViT, hybrid or ResNet v1."""
    return "embedding/kernel" in source.tensors or "conv_root/kernel" in source.tensors


def canonical(source: WeightFile) -> dict[str, Tensor]:
    """Return the tensors under the names of the released files.

    Later names are mapped back, and layers stacked for a scan are split. big_vision's position
    table, which is added before the class token is prepended, gets a row of zeros for it.
    """
    tensors = _unstack(source.tensors)
    newer = any("MlpBlock_0" in name for name in tensors if "encoderblock" in name)
    if newer:
        pattern = re.compile("|".join(_RELEASED_NAMES))
        tensors = {
            pattern.sub(lambda match: _RELEASED_NAMES[match[0]], name)
            if "encoderblock" in name
            else name: tensor
            for name, tensor in tensors.items()
        }
    named = dict(tensors)
    if "pos_embedding" in named:
        table = named.pop("pos_embedding")
        if "cls" in named:
            table = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
        named[POSITIONS] = table
    return named


def infer(source: WeightFile) -> ModelConfig:
    """Infer the architecture from the shapes.

    Raises:
        ModelFileError: a tensor that every ViT has is missing, or the grid is unknown.
    """
    tensors, path = source.tensors, source.path
    if "embedding/kernel" not in tensors:
        return _infer_resnet(tensors, has_head="head/kernel" in tensors)
    try:
        height, width, channels, embed_dim = tensors["embedding/kernel"].shape
        block = "Transformer/encoderblock_0"
        query = tensors[f"{block}/MultiHeadDotProductAttention_1/query/kernel"]
        mlp = tensors[f"{block}/MlpBlock_3/Dense_0/kernel"]
        num_positions = tensors[POSITIONS].shape[1]
        num_heads = query.shape[1]
    except KeyError as error:
        raise ModelFileError(f"{path} is not an official ViT: it has no {error.args[0]}") from None
    has_token = "cls" in tensors
    depth = len({k.split("/")[1] for k in tensors if k.startswith("Transformer/encoderblock_")})
    shape: dict[str, Any] = {
        "embed_dim": embed_dim, "depth": depth, "mlp_dim": mlp.shape[1], "num_heads": num_heads,
    }  # fmt: skip
    assume_depth(shape, source)
    stem = None
    if "conv_root/kernel" in tensors:
        stem = _infer_resnet(tensors, has_head=False)
        channels = stem.in_channels
    ratio = stem.stride if stem else 1
    image_size = side_of(
        num_positions - has_token, (height * ratio, width * ratio), source.stated, path=path
    )
    head, representation = tensors.get("head/bias"), tensors.get("pre_logits/bias")
    pool = "token" if has_token else ("map" if "MAPHead_0/probe" in tensors else "gap")
    return ViTConfig(
        name=vit_name(shape, patch=(height, width), stem=stem),
        **shape,
        patch_size=(height, width),
        image_size=image_size,
        in_channels=channels,
        num_classes=0 if head is None else len(head),
        representation_size=0 if representation is None else len(representation),
        pool=pool,
        resnet=stem,
    )


def entries(config: ModelConfig) -> list[Entry]:
    """Return the entries of a model's tensors in an official file."""
    if isinstance(config, ResNetConfig):
        return [*_resnet("trunk", config), *_head(config)]
    assert isinstance(config, ViTConfig)
    projection = "embedding.projection" if config.resnet else "embedding"
    found = [
        Entry(f"{projection}.weight", ("embedding/kernel",), FLAX_CONV),
        Entry(f"{projection}.bias", ("embedding/bias",), SAME),
        Entry("positions.0.table", (POSITIONS,), SAME),
        *pair("norm", "Transformer/encoder_norm/", weight="scale"),
    ]
    if config.resnet:
        found += _resnet("embedding.resnet", config.resnet)
    if config.class_token:
        found.append(Entry("cls_token", ("cls",), SAME))
    for index in range(config.depth):
        found += _block(f"blocks.{index}", f"Transformer/encoderblock_{index}/", config)
    if config.pool == "map":
        found += _map_head(config)
    if config.representation_size:
        found += pair("pre_logits", "pre_logits/", weight="kernel", layout=FLAX_DENSE)
    return [*found, *_head(config)]


def preprocessing(source: WeightFile, config: ModelConfig) -> Preprocessing:
    """Return the official evaluation's: a squash without antialias, values in [-1, 1]."""
    half = (0.5,) * config.in_channels
    return Preprocessing(
        size=config.image_hw,
        channels=config.in_channels,
        resize="squash",
        antialias=False,
        rounding="none",
        mean=half,
        std=half,
    )


def classes(source: WeightFile) -> None:
    """Return None: official files do not name their classes."""


def is_spare(name: str) -> bool:
    """Return whether a tensor belongs to a text tower; all others belong to the model."""
    return name.startswith("txt/") or name in ("t", "b")


def cautions(config: ModelConfig) -> list[str]:
    """Return what the official code computes differently."""
    if isinstance(config, ResNetConfig):
        return resnet_cautions(config, V1_FIELDS)
    assert isinstance(config, ViTConfig)
    cautions = resnet_cautions(config.resnet, V1_FIELDS) if config.resnet else []
    if config.activation != "gelu_tanh":
        cautions.append(
            "the official code computes GELU by tanh, this model exactly: logits differ by about "
            "1e-3 there"
        )
    if config.norm_eps != 1e-6:
        cautions.append(f"the official code adds 1e-6 in norms, this model {config.norm_eps:g}")
    return cautions


def resnet_cautions(config: ResNetConfig, official: Mapping[str, Any]) -> list[str]:
    """Return which conventions of a ResNet differ from the official code's."""
    return [
        f"the official code has {name}={official[name]!r} in its ResNet, this model "
        f"{getattr(config, name)!r}"
        for name in ("norm_eps", "standardization", "standardization_eps", "pool_padding")
        if getattr(config, name) != official[name]
    ]


def side_files(model: Model) -> dict[str, Any]:
    """Return nothing: an `.npz` has no files beside it."""
    return {}


def refusal(config: ModelConfig) -> str | None:
    """Return why a model can't be stored in an official file, or None."""
    if isinstance(config, ResNetConfig):
        return _stem_refusal(config) if config.version == "v1" else "is a ResNet of version v2"
    if not isinstance(config, ViTConfig):
        return "is an AxialResNet"
    reasons = {
        "has axial attention": config.attention == "axial",
        f"has position={config.position!r}": config.position != "1d",
        f"has position_at={config.position_at!r}": config.position_at != "stem",
        "has registers": config.num_registers,
        "has QK-norm": config.qk_norm,
        "has LayerScale": config.layer_scale is not None,
        "has a gated MLP": config.activation == "swiglu",
        "normalises after pooling": config.norm_pooled,
        f"has pool={config.pool!r}": config.pool not in ("token", "gap", "map"),
        "has a class token that it does not read": config.class_token and config.pool != "token",
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    return reason or (_stem_refusal(config.resnet) if config.resnet else None)


def _stem_refusal(stem: ResNetConfig) -> str | None:
    if stem.version != "v1":
        return "has a ResNet of version v2"
    if stem.padding != "same":
        return f"has padding={stem.padding!r}"
    return "has a gain in its root" if stem.root_gain else None


def _block(ours: str, theirs: str, config: ViTConfig) -> list[Entry]:
    return [
        *_attention(f"{ours}.attention", f"{theirs}MultiHeadDotProductAttention_1/", config),
        *pair(f"{ours}.norm1", f"{theirs}LayerNorm_0/", weight="scale"),
        *pair(f"{ours}.norm2", f"{theirs}LayerNorm_2/", weight="scale"),
        *_mlp(f"{ours}.mlp", f"{theirs}MlpBlock_3/"),
    ]


def _map_head(config: ViTConfig) -> list[Entry]:
    ours, theirs = "attention_pool", "MAPHead_0/"
    return [
        Entry(f"{ours}.probe", (f"{theirs}probe",), SAME),
        *_attention(f"{ours}.attention", f"{theirs}MultiHeadDotProductAttention_0/", config),
        *pair(f"{ours}.norm", f"{theirs}LayerNorm_0/", weight="scale"),
        *_mlp(f"{ours}.mlp", f"{theirs}MlpBlock_0/"),
    ]


def _attention(ours: str, theirs: str, config: ViTConfig) -> list[Entry]:
    heads = config.num_heads
    parts = [f"{theirs}{part}/" for part in ("query", "key", "value")]
    return [
        Entry(f"{ours}.qkv.weight", tuple(f"{p}kernel" for p in parts), flax_qkv_kernels(heads)),
        Entry(f"{ours}.qkv.bias", tuple(f"{p}bias" for p in parts), flax_qkv_biases(heads)),
        Entry(f"{ours}.out.weight", (f"{theirs}out/kernel",), flax_out_kernel(heads)),
        Entry(f"{ours}.out.bias", (f"{theirs}out/bias",), SAME),
    ]


def _mlp(ours: str, theirs: str) -> list[Entry]:
    return [
        *pair(f"{ours}.hidden", f"{theirs}Dense_0/", weight="kernel", layout=FLAX_DENSE),
        *pair(f"{ours}.out", f"{theirs}Dense_1/", weight="kernel", layout=FLAX_DENSE),
    ]


def _head(config: ModelConfig) -> list[Entry]:
    if not config.num_classes:
        return []
    return pair("head", "head/", weight="kernel", layout=FLAX_DENSE)


def _resnet(ours: str, config: ResNetConfig) -> list[Entry]:
    """Return the entries of a ResNet v1, whose units count from 1 without a leading zero."""
    found = [
        Entry(f"{ours}.root.weight", ("conv_root/kernel",), FLAX_CONV),
        *_group_norm(f"{ours}.root_norm", "gn_root/"),
    ]
    for stage, count in enumerate(config.stages):
        for unit in range(count):
            here = f"{ours}.stages.{stage}.{unit}"
            there = f"block{stage + 1}/unit{unit + 1}/"
            for part in (1, 2, 3):
                kernel = (f"{there}conv{part}/kernel",)
                found.append(Entry(f"{here}.conv{part}.weight", kernel, FLAX_CONV))
                found += _group_norm(f"{here}.norm{part}", f"{there}gn{part}/")
            if unit == 0:
                kernel = (f"{there}conv_proj/kernel",)
                found.append(Entry(f"{here}.projection.weight", kernel, FLAX_CONV))
                found += _group_norm(f"{here}.projection_norm", f"{there}gn_proj/")
    return found


def _group_norm(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(f"{ours}.weight", (f"{theirs}scale",), FLAX_GROUP_NORM),
        Entry(f"{ours}.bias", (f"{theirs}bias",), FLAX_GROUP_NORM),
    ]


def _infer_resnet(tensors: Tensors, *, has_head: bool) -> ResNetConfig:
    root = tensors["conv_root/kernel"]
    stages, width_factor = resnet_shape(tensors, r"block(\d+)/unit(\d+)/", root.shape[3])
    return ResNetConfig(
        name=(name_of if has_head else stem_name)(stages, width_factor),
        stages=stages,
        width_factor=width_factor,
        in_channels=root.shape[2],
        num_classes=tensors["head/kernel"].shape[1] if has_head else 0,
        **V1_FIELDS,  # type: ignore[arg-type]
    )


def _unstack(tensors: Tensors) -> dict[str, Tensor]:
    """Split layers that are stacked along a first axis (big_vision's scan)."""
    stacked = "Transformer/encoderblock/"
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith(stacked):
            found[name] = tensor
            continue
        for index, layer in enumerate(tensor):
            found[f"Transformer/encoderblock_{index}/{name.removeprefix(stacked)}"] = layer
    return found
