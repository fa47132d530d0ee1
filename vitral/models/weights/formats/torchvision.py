"""Reading and writing of torchvision's ViTs.

Source: pytorch/vision, `torchvision/models/vision_transformer.py`.
"""

import re
from typing import Any

from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing, imagenet_preprocessing
from vitral.config.vit import ViTConfig
from vitral.errors import ModelFileError
from vitral.models.model import Model
from vitral.models.weights.mapping import (
    SAME,
    Entry,
    assume_depth,
    heads_of,
    pair,
    side_of,
    vit_name,
)
from vitral.models.weights.source import WeightFile

NAME = "torchvision"
SUFFIX = ".safetensors"
LAYER = "encoder.layers.encoder_layer_"
# The names of MLPs before and since torchvision 0.14.
_OLDER = {"mlp.linear_1.": "mlp.0.", "mlp.linear_2.": "mlp.3."}
# Its SWAG weights, fine-tuned at these sizes, are evaluated on whole images.
_WHOLE_SIZES = (384, 512, 518)


def recognises(source: WeightFile) -> bool:
    """Return whether weights have the names of a ViT of torchvision."""
    return {"conv_proj.weight", "encoder.pos_embedding"} <= set(source.tensors)


def canonical(source: WeightFile) -> dict[str, Tensor]:
    """Return the tensors under the names used since torchvision 0.14."""
    pattern = re.compile("|".join(map(re.escape, _OLDER)))
    return {
        pattern.sub(lambda match: _OLDER[match[0]], name): tensor
        for name, tensor in source.tensors.items()
    }


def infer(source: WeightFile) -> ViTConfig:
    """Infer the architecture from the shapes.

    Raises:
        ModelFileError: it is no such ViT, or the number of heads is unknown.
    """
    tensors, path = source.tensors, source.path
    try:
        embed_dim, channels, height, width = tensors["conv_proj.weight"].shape
        num_positions = tensors["encoder.pos_embedding"].shape[1]
        mlp_dim = tensors[f"{LAYER}0.mlp.0.weight"].shape[0]
    except KeyError as error:
        raise ModelFileError(
            f"{path} is no ViT of torchvision: it has no {error.args[0]}"
        ) from None
    layers = {match[1] for n in tensors if (match := re.match(rf"{re.escape(LAYER)}(\d+)\.", n))}
    shape: dict[str, Any] = {
        "embed_dim": embed_dim, "depth": len(layers), "mlp_dim": mlp_dim,
        "num_heads": heads_of(embed_dim, source),
    }  # fmt: skip
    assume_depth(shape, source)
    return ViTConfig(
        name=vit_name(shape, patch=(height, width)),
        **shape,
        patch_size=(height, width),
        image_size=side_of(num_positions - 1, (height, width), source.stated, path=path),
        in_channels=channels,
        num_classes=len(tensors.get("heads.head.bias", ())),
        representation_size=len(tensors.get("heads.pre_logits.bias", ())),
        activation="gelu",
        position_resize="bicubic_corners",
    )


def entries(config: ModelConfig) -> list[Entry]:
    """Return the entries of a ViT's tensors."""
    assert isinstance(config, ViTConfig)
    found = [
        *pair("embedding", "conv_proj."),
        Entry("cls_token", ("class_token",), SAME),
        Entry("positions.0.table", ("encoder.pos_embedding",), SAME),
        *pair("norm", "encoder.ln."),
    ]
    for index in range(config.depth):
        ours, theirs = f"blocks.{index}", f"{LAYER}{index}."
        found += [
            *pair(f"{ours}.norm1", f"{theirs}ln_1."),
            *pair(
                f"{ours}.attention.qkv",
                f"{theirs}self_attention.",
                weight="in_proj_weight",
                bias="in_proj_bias",
            ),
            *pair(f"{ours}.attention.out", f"{theirs}self_attention.out_proj."),
            *pair(f"{ours}.norm2", f"{theirs}ln_2."),
            *pair(f"{ours}.mlp.hidden", f"{theirs}mlp.0."),
            *pair(f"{ours}.mlp.out", f"{theirs}mlp.3."),
        ]
    if config.representation_size:
        found += pair("pre_logits", "heads.pre_logits.")
    if config.num_classes:
        found += pair("head", "heads.head.")
    return found


def preprocessing(source: WeightFile, config: ModelConfig) -> Preprocessing:
    """Return torchvision's evaluation preprocessing for weights of that size and architecture."""
    assert isinstance(config, ViTConfig)
    source.assume(
        f"the preprocessing of torchvision's weights for {config.image_hw[0]} pixels; its linear "
        "SWAG weights want bicubic, 224 of 224"
    )
    if config.image_hw[0] in _WHOLE_SIZES:
        return imagenet_preprocessing(config, interpolation="bicubic", crop_share=1.0)
    resized = 242 if (config.embed_dim, config.patch_hw) == (1024, (16, 16)) else 256
    return imagenet_preprocessing(config, interpolation="bilinear", crop_share=224 / resized)


def classes(source: WeightFile) -> None:
    """Return None: weights of torchvision do not name their classes."""


def is_spare(name: str) -> bool:
    """Return False: every tensor belongs to the model."""
    return False


def refusal(config: ModelConfig) -> str | None:
    """Return why a model can't be stored as torchvision's ViT, or None."""
    if not isinstance(config, ViTConfig):
        return "is no ViT"
    height, width = config.image_hw
    patch = config.patch_hw
    reasons = {
        "is a hybrid": config.resnet is not None,
        "has axial attention": config.attention == "axial",
        f"has position={config.position!r}": config.position != "1d",
        f"has position_at={config.position_at!r}": config.position_at != "stem",
        f"has pool={config.pool!r}": config.pool != "token",
        "has registers": config.num_registers > 0,
        "has QK-norm": config.qk_norm,
        "has LayerScale": config.layer_scale is not None,
        "has a gated MLP": config.activation == "swiglu",
        "normalises after pooling": config.norm_pooled,
        f"has images of {height} x {width}, no squares": height != width,
        f"has patches of {patch[0]} x {patch[1]}, no squares": patch[0] != patch[1],
        "has patches that do not tile its images": config.uncovered_pixels_note() is not None,
        f"has {config.in_channels} channels": config.in_channels != 3,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cautions(config: ModelConfig) -> list[str]:
    """Return what torchvision computes differently."""
    assert isinstance(config, ViTConfig)
    found = []
    if config.activation == "gelu_tanh":
        found.append(
            "torchvision computes the exact GELU, this model GELU by tanh: logits differ by about "
            "1e-3 there"
        )
    if config.norm_eps != 1e-6:
        found.append(f"torchvision adds 1e-6 in norms, this model {config.norm_eps:g}")
    if not config.num_classes:
        found.append(
            "torchvision's ViTs have a head, this model has none: load it with strict=False"
        )
    return found


def side_files(model: Model) -> dict[str, Any]:
    """Return nothing: weights of torchvision have no files beside them."""
    return {}
