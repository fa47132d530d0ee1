"""Hugging Face's folders: ViT, DeiT, DINOv2, BiT, and the encoder of ViT-MAE.

The names of tensors are those of transformers' files. `config.json` beside them has conventions
that no shape determines, `preprocessor_config.json` the preprocessing.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing
from vitral.config.resnet import ResNetConfig
from vitral.config.vit import ViTConfig
from vitral.errors import ModelFileError
from vitral.models.model import Model
from vitral.models.weights.formats.huggingface import bit, dinov2, vit
from vitral.models.weights.formats.huggingface.processor import (
    DEFAULTS,
    read_processor,
    write_processor,
)
from vitral.models.weights.mapping import Entry
from vitral.models.weights.source import WeightFile

NAME = "huggingface"
SUFFIX = ".safetensors"
MODEL_TYPES = ("vit", "deit", "vit_mae", "dinov2", "dinov2_with_registers", "bit")
# Prefixes of the trunk's names in files that have a head or a decoder.
BASES = ("vit.", "deit.", "dinov2.", "dinov2_with_registers.", "bit.")
_TRUNK = ("embeddings.", "encoder.", "layernorm.", "pooler.", "embedder.", "norm.")


def recognises(source: WeightFile) -> bool:
    """Return whether weights have the names of transformers' files."""
    plain = _plain(source.tensors)
    return {vit.KERNEL, "embeddings.cls_token"} <= plain.keys() or bit.ROOT in plain


def canonical(source: WeightFile) -> dict[str, Tensor]:
    """Return the tensors with a prefix if, and only if, there is a classifier."""
    tensors = vit.canonical(_plain(source.tensors))
    base = _base(tensors) if _has_head(tensors) else ""
    return {base + name if name.startswith(_TRUNK) else name: t for name, t in tensors.items()}


def infer(source: WeightFile) -> ModelConfig:
    """Infer the architecture from the shapes and `config.json`.

    Raises:
        ModelFileError: the config is another model's, or has a setting that is not supported.
    """
    model_type = source.config.get("model_type")
    if model_type not in (None, *MODEL_TYPES):
        raise ModelFileError(
            f"config.json has model_type={model_type!r}: known are {', '.join(MODEL_TYPES)}"
        )
    tensors = _plain(source.tensors)
    if bit.ROOT in tensors:
        return bit.infer(tensors, source)
    return (dinov2 if dinov2.is_dinov2(tensors) else vit).infer(tensors, source)


def entries(config: ModelConfig) -> list[Entry]:
    """Return the entries of a model's tensors in a file."""
    if isinstance(config, ResNetConfig):
        return bit.entries(config)
    assert isinstance(config, ViTConfig)
    return dinov2.entries(config) if _is_dinov2(config) else vit.entries(config)


def preprocessing(source: WeightFile, config: ModelConfig) -> Preprocessing:
    """Return that of `preprocessor_config.json`, else that of the type's published weights."""
    kind = _type_of(source)
    if not source.processor:
        source.assume(
            f"the preprocessing of published {kind} weights: there is no preprocessor_config.json "
            "beside it"
        )
    processor = source.processor or DEFAULTS[kind]
    return read_processor(processor, size=config.image_hw, channels=config.in_channels)


def classes(source: WeightFile) -> tuple[str, ...] | None:
    """Return the names in `id2label`, unless they are placeholders: LABEL_0, LABEL_1, ..."""
    labels = source.config.get("id2label")
    heads = ("classifier.weight", "cls_classifier.weight", "classifier.1.weight")
    head = next((source.tensors[name] for name in heads if name in source.tensors), None)
    if not isinstance(labels, Mapping) or head is None or len(labels) != len(head):
        return None
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return None if names == _numbered(len(names)) else names


def is_spare(name: str) -> bool:
    """Return whether a tensor is only for pre-training, or a pooler that the classifier skips."""
    bare_name = _without_base(name)
    return bare_name.startswith(("decoder.", "pooler.")) or bare_name == "embeddings.mask_token"


def refusal(config: ModelConfig) -> str | None:
    """Return why a model can't be stored for transformers, or None."""
    if isinstance(config, ResNetConfig):
        return bit.refusal(config)
    if not isinstance(config, ViTConfig):
        return "is an AxialResNet"
    reasons = {
        "is a hybrid": config.resnet is not None,
        "has axial attention": config.attention == "axial",
        f"has position={config.position!r}": config.position != "1d",
        f"has position_at={config.position_at!r}": config.position_at != "stem",
        "has QK-norm": config.qk_norm,
        "has no class token": not config.class_token,
        "normalises after pooling": config.norm_pooled,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    return reason or (dinov2 if _is_dinov2(config) else vit).refusal(config)


def cautions(config: ModelConfig) -> list[str]:
    """Return what transformers will compute differently with the written files."""
    if isinstance(config, ResNetConfig):
        return bit.cautions(config)
    assert isinstance(config, ViTConfig)
    return dinov2.cautions(config) if _is_dinov2(config) else vit.cautions(config)


def side_files(model: Model) -> dict[str, Any]:
    """Return `config.json` and `preprocessor_config.json`."""
    config = model.config
    if isinstance(config, ResNetConfig):
        described = bit.describe(config)
    else:
        assert isinstance(config, ViTConfig)
        described = (dinov2 if _is_dinov2(config) else vit).describe(config)
    described["dtype"] = "float32"
    if config.num_classes:
        names = model.classes or _numbered(config.num_classes)
        described["id2label"] = {str(index): name for index, name in enumerate(names)}
        described["label2id"] = {name: index for index, name in enumerate(names)}
    if model.output == "sigmoid":
        described["problem_type"] = "multi_label_classification"
    return {
        "config.json": described,
        "preprocessor_config.json": write_processor(model.preprocessing),
    }


def _numbered(count: int) -> tuple[str, ...]:
    """Return transformers' placeholder names of classes."""
    return tuple(f"LABEL_{index}" for index in range(count))


def _is_dinov2(config: ViTConfig) -> bool:
    return config.layer_scale is not None


def _without_base(name: str) -> str:
    return name.removeprefix(next((base for base in BASES if name.startswith(base)), ""))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_without_base(name): tensor for name, tensor in tensors.items()}


def _has_head(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("classifier.", "cls_classifier.")) for name in tensors)


def _base(tensors: dict[str, Tensor]) -> str:
    """Return the prefix of the trunk's names in a file with a head."""
    if bit.ROOT in tensors:
        return "bit."
    if dinov2.is_dinov2(tensors):
        return "dinov2_with_registers." if dinov2.REGISTERS in tensors else "dinov2."
    return "deit." if vit.DISTILLATION in tensors else "vit."


def _type_of(source: WeightFile) -> str:
    """Return the type whose preprocessing applies; DINOv2 has one, with registers or without."""
    stated = source.config.get("model_type")
    if stated is not None:
        return "dinov2" if stated.startswith("dinov2") else str(stated)
    tensors = _plain(source.tensors)
    if any(name.startswith("decoder.decoder_") for name in tensors):
        return "vit_mae"
    return _base(tensors).partition("_")[0].rstrip(".")
