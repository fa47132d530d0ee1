"""The `.npz` files of BiT's authors (google-research/big_transfer), and big_vision's names."""

import re
from typing import Any

from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing
from vitral.config.resnet import ResNetConfig
from vitral.errors import ModelFileError
from vitral.models.model import Model
from vitral.models.weights.formats import official
from vitral.models.weights.mapping import (
    FLAX_CONV,
    FLAX_CONV_HEAD,
    SAME,
    VECTOR,
    Entry,
    name_of,
    resnet_shape,
)
from vitral.models.weights.source import WeightFile

NAME = "official"
SUFFIX = ".npz"
ROOT = "resnet/root_block/standardized_conv2d/kernel"
HEAD = "resnet/head/conv2d/"
# A unit's three convolutions, each after its norm, by TensorFlow's names.
_PARTS = {1: "a", 2: "b", 3: "c"}


def recognises(source: WeightFile) -> bool:
    """Return whether weights have the names of a BiT file."""
    plain = {_without_numbers(name) for name in source.tensors}
    return ROOT in plain or "root_block/conv_root/kernel" in plain


def canonical(source: WeightFile) -> dict[str, Tensor]:
    """Return the tensors under the released files' names, without number suffixes of layers."""
    tensors = source.tensors
    if "root_block/conv_root/kernel" in tensors:
        return {_from_big_vision(name): tensor for name, tensor in tensors.items()}
    return {_without_numbers(name): tensor for name, tensor in tensors.items()}


def infer(source: WeightFile) -> ModelConfig:
    """Infer the architecture from the shapes, which do not determine the image size.

    Raises:
        ModelFileError: the root is no kernel of a convolution.
    """
    tensors, path = source.tensors, source.path
    root, head = tensors[ROOT], tensors.get(f"{HEAD}kernel")
    if root.ndim != 4:
        raise ModelFileError(f"{path}: {ROOT} has shape {tuple(root.shape)}, not (7, 7, C, K)")
    stages, width_factor = resnet_shape(tensors, r"resnet/block(\d+)/unit(\d+)/", root.shape[3])
    return ResNetConfig(
        name=name_of(stages, width_factor),
        stages=stages,
        width_factor=width_factor,
        image_size=source.stated.get("image_size") or 224,
        in_channels=root.shape[2],
        num_classes=0 if head is None else head.shape[-1],
    )


def entries(config: ModelConfig) -> list[Entry]:
    """Return the entries of a BiT ResNet's tensors in an official file."""
    assert isinstance(config, ResNetConfig)
    found = [
        Entry("trunk.root.weight", (ROOT,), FLAX_CONV),
        *_group_norm("trunk.norm", "resnet/"),
    ]
    for stage, count in enumerate(config.stages):
        for unit in range(count):
            here = f"trunk.stages.{stage}.{unit}"
            there = f"resnet/block{stage + 1}/unit{unit + 1:02}/"
            for number, part in _PARTS.items():
                kernel = (f"{there}{part}/standardized_conv2d/kernel",)
                found.append(Entry(f"{here}.conv{number}.weight", kernel, FLAX_CONV))
                found += _group_norm(f"{here}.norm{number}", f"{there}{part}/")
            if unit == 0:
                kernel = (f"{there}a/proj/standardized_conv2d/kernel",)
                found.append(Entry(f"{here}.projection.weight", kernel, FLAX_CONV))
    if config.num_classes:
        found.append(Entry("head.weight", (f"{HEAD}kernel",), FLAX_CONV_HEAD))
        found.append(Entry("head.bias", (f"{HEAD}bias",), SAME))
    return found


def preprocessing(source: WeightFile, config: ModelConfig) -> Preprocessing:
    """Return the BiT authors' evaluation, which is that of the official ViT."""
    height, width = config.image_hw
    if source.stated.get("image_size") is None:
        source.assume(
            f"images of {height} x {width}, as in training; those fine-tuned on ILSVRC-2012 were "
            "scored at 480 (R152x4 and R101x3 among them) or 384: image_size= states it"
        )
    return official.preprocessing(source, config)


def classes(source: WeightFile) -> None:
    """Return None: official files do not name their classes."""


def is_spare(name: str) -> bool:
    """Return False: every tensor belongs to the model."""
    return False


def refusal(config: ModelConfig) -> str | None:
    """Return why a model can't be stored in a BiT file, or None."""
    if not isinstance(config, ResNetConfig) or config.version != "v2":
        return "is no BiT ResNet"
    if config.padding != "fixed":
        return f"has padding={config.padding!r}"
    return "has a gain in its root" if config.root_gain else None


def cautions(config: ModelConfig) -> list[str]:
    """Return what the official code computes differently."""
    assert isinstance(config, ResNetConfig)
    return official.resnet_cautions(config, vars(ResNetConfig))


def side_files(model: Model) -> dict[str, Any]:
    """Return nothing: an `.npz` has no files beside it."""
    return {}


def _group_norm(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(f"{ours}.weight", (f"{theirs}group_norm/gamma",), VECTOR),
        Entry(f"{ours}.bias", (f"{theirs}group_norm/beta",), VECTOR),
    ]


def _without_numbers(name: str) -> str:
    """Remove the numbers that TensorFlow appends to layers of the same name."""
    return re.sub(r"(standardized_conv2d|group_norm|conv2d)_\d+(?=/)", r"\1", name)


def _from_big_vision(name: str) -> str:
    """Return the released name for a name of big_vision (models/bit_paper.py)."""
    parts = {str(number): part for number, part in _PARTS.items()}
    rules = (
        (r"^root_block/conv_root/kernel$", lambda m: ROOT),
        (r"^norm-pre-head/(scale|bias)$", lambda m: f"resnet/group_norm/{_NORM[m[1]]}"),
        (r"^head/(kernel|bias)$", lambda m: HEAD + m[1]),
        (r"^(block\d+/unit\d+)/conv_proj/kernel$",
         lambda m: f"resnet/{m[1]}/a/proj/standardized_conv2d/kernel"),
        (r"^(block\d+/unit\d+)/conv(\d)/kernel$",
         lambda m: f"resnet/{m[1]}/{parts[m[2]]}/standardized_conv2d/kernel"),
        (r"^(block\d+/unit\d+)/gn(\d)/(scale|bias)$",
         lambda m: f"resnet/{m[1]}/{parts[m[2]]}/group_norm/{_NORM[m[3]]}"),
    )  # fmt: skip
    for pattern, rename in rules:
        if match := re.match(pattern, name):
            return rename(match)
    return name


_NORM = {"scale": "gamma", "bias": "beta"}
