"""Reading and writing of timm's BiT ResNets (`resnetv2_50x1_bit`), and the ResNets of its hybrids.

Source: huggingface/pytorch-image-models, `timm/models/resnetv2.py`.
"""

from typing import Any

from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing, default_preprocessing
from vitral.config.resnet import ResNetConfig
from vitral.config.variants import RESNET_STAGES
from vitral.errors import ModelFileError
from vitral.models.model import Model
from vitral.models.weights.formats.timm.config import (
    BACKBONE,
    UNIT,
    _below,
    classes_of,
    describe,
    image_sizes_of,
    stated_preprocessing,
)
from vitral.models.weights.mapping import (
    SAME,
    TORCH_CONV_HEAD,
    Entry,
    Tensors,
    name_of,
    pair,
    resnet_shape,
    stem_name,
)
from vitral.models.weights.source import WeightFile

NAME = "timm"
SUFFIX = ".safetensors"
STANDARDIZATION_EPS = 1e-8
NORM_EPS = 1e-5
# Fields of a hybrid's ResNet.
STEM_FIELDS = {
    "version": "v1",
    "norm_eps": NORM_EPS,
    "standardization": "variance",
    "standardization_eps": STANDARDIZATION_EPS,
    "padding": "same",
    "pool_padding": "infinite",
}
# Layers and width factors of the BiT ResNets that timm has a name for.
_NAMED = {(50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4)}


def recognises(source: WeightFile) -> bool:
    """Return whether weights have the names of a ResNet with pre-activation in timm."""
    return {"stem.conv.weight", "stages.0.blocks.0.norm1.weight"} <= set(source.tensors)


def canonical(source: WeightFile) -> dict[str, Tensor]:
    """Return the tensors unchanged: there is one spelling."""
    return source.tensors


def infer(source: WeightFile) -> ModelConfig:
    """Infer the architecture from the shapes; the image size is stated or 224.

    Raises:
        ModelFileError: it is no BiT ResNet.
    """
    tensors = source.tensors
    if "stem.norm.weight" in tensors or "norm.weight" not in tensors:
        raise ModelFileError(
            f"{source.path} is no BiT ResNet: its units have no norm before their convolutions"
        )
    width, channels = tensors["stem.conv.weight"].shape[:2]
    stages, width_factor = resnet_shape(tensors, UNIT, width)
    sizes = image_sizes_of(source)
    return ResNetConfig(
        name=name_of(stages, width_factor),
        stages=stages,
        width_factor=width_factor,
        image_size=sizes[0] if sizes else 224,
        in_channels=channels,
        num_classes=_num_classes(tensors),
        norm_eps=NORM_EPS,
        standardization_eps=STANDARDIZATION_EPS,
    )


def entries(config: ModelConfig) -> list[Entry]:
    """Return the entries of a BiT ResNet's tensors."""
    assert isinstance(config, ResNetConfig)
    found = [*trunk_entries("trunk", "", config), *pair("trunk.norm", "norm.")]
    if config.num_classes:
        found += pair("head", "head.fc.", layout=TORCH_CONV_HEAD)
    return found


def preprocessing(source: WeightFile, config: ModelConfig) -> Preprocessing:
    """Return the preprocessing in `config.json`, else timm's default for BiT."""
    usual = default_preprocessing(config.image_hw, channels=config.in_channels, crop_share=0.875)
    return stated_preprocessing(source, usual)


def classes(source: WeightFile) -> tuple[str, ...] | None:
    """Return the names that `config.json` states, or None."""
    return classes_of(source, num_classes=_num_classes(source.tensors))


def is_spare(name: str) -> bool:
    """Return False: every tensor belongs to the model."""
    return False


def refusal(config: ModelConfig) -> str | None:
    """Return why a model is no BiT ResNet of timm, or None."""
    if not isinstance(config, ResNetConfig):
        return "is no ViT, hybrid or BiT ResNet"
    reasons = {
        "is a ResNet of version v1": config.version != "v2",
        "has a gain in its root": config.root_gain,
        f"has padding={config.padding!r}": config.padding != "fixed",
        f"has pool_padding={config.pool_padding!r}": config.pool_padding != "zero",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cautions(config: ModelConfig) -> list[str]:
    """Return what timm computes differently."""
    assert isinstance(config, ResNetConfig)
    found = convention_cautions(config)
    if _architecture(config) is None:
        found.append(
            f"timm has no name for {config.name}, so no config.json is written: build it there as "
            "ResNetV2 and load model.safetensors"
        )
    return found


def side_files(model: Model) -> dict[str, Any]:
    """Return `config.json`, if timm has a name for the model."""
    assert isinstance(model.config, ResNetConfig)
    architecture = _architecture(model.config)
    if architecture is None:
        return {}
    arguments = {} if model.config.in_channels == 3 else {"in_chans": model.config.in_channels}
    described = describe(
        model,
        architecture=architecture,
        arguments=arguments,
        first_conv="stem.conv",
        classifier="head.fc",
        is_fixed_size=False,
    )
    return {"config.json": described}


def convention_cautions(config: ResNetConfig) -> list[str]:
    """Return which constants differ in timm."""
    found = []
    if config.norm_eps != NORM_EPS:
        found.append(
            f"timm adds {NORM_EPS:g} in the norms of ResNets, this model {config.norm_eps:g}: "
            "logits differ by about 1e-5"
        )
    stated = (config.standardization, config.standardization_eps)
    if stated != ("variance", STANDARDIZATION_EPS):
        found.append(
            f"timm divides kernels by sqrt(variance + {STANDARDIZATION_EPS:g}), this model has "
            f"standardization={stated[0]!r} with {stated[1]:g}: logits differ by about 2e-4"
        )
    return found


def trunk_entries(ours: str, theirs: str, config: ResNetConfig) -> list[Entry]:
    """Return the entries of root and units, without version v2's last norm.

    Args:
        ours: name of our trunk.
        theirs: prefix of their names, with its separator.
        config: of the ResNet.
    """
    # Without stages, timm has only the stem's layers, not in a module named stem.
    stem = f"{theirs}stem." if config.stages else theirs
    found = [Entry(f"{ours}.root.weight", (f"{stem}conv.weight",), SAME)]
    if config.version == "v1":
        found += pair(f"{ours}.root_norm", f"{stem}norm.")
    for stage, count in enumerate(config.stages):
        for unit in range(count):
            here, there = f"{ours}.stages.{stage}.{unit}", f"{theirs}stages.{stage}.blocks.{unit}."
            for part in (1, 2, 3):
                kernel = (f"{there}conv{part}.weight",)
                found.append(Entry(f"{here}.conv{part}.weight", kernel, SAME))
                found += pair(f"{here}.norm{part}", f"{there}norm{part}.")
            if unit == 0:
                kernel = (f"{there}downsample.conv.weight",)
                found.append(Entry(f"{here}.projection.weight", kernel, SAME))
                if config.version == "v1":
                    found += pair(f"{here}.projection_norm", f"{there}downsample.norm.")
    return found


def infer_stem(tensors: Tensors) -> ResNetConfig | None:
    """Return a hybrid's ResNet, or None if there is none."""
    root = tensors.get(f"{BACKBONE}stem.conv.weight", tensors.get(f"{BACKBONE}conv.weight"))
    if root is None:
        return None
    stages, width_factor = resnet_shape(_below(tensors), UNIT, root.shape[0])
    return ResNetConfig(
        name=stem_name(stages, width_factor),
        stages=stages,
        width_factor=width_factor,
        in_channels=root.shape[1],
        num_classes=0,
        **STEM_FIELDS,  # type: ignore[arg-type]
    )


def _num_classes(tensors: Tensors) -> int:
    return len(tensors.get("head.fc.bias", ()))


def _architecture(config: ResNetConfig) -> str | None:
    """Return timm's name, or None."""
    for layers, stages in RESNET_STAGES.items():
        if stages == config.stages and (layers, config.width_factor) in _NAMED:
            return f"resnetv2_{layers}x{config.width_factor:g}_bit"
    return None
