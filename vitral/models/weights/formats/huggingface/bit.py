"""Hugging Face's BiT: names of tensors, and `config.json`."""

from typing import Any

from vitral.config.resnet import EXPANSION, NUM_GROUPS, ResNetConfig
from vitral.errors import ModelFileError
from vitral.models.weights.formats.huggingface.processor import DEFAULTS, cropped_size
from vitral.models.weights.mapping import SAME, Entry, Tensors, name_of, pair, resnet_shape
from vitral.models.weights.source import WeightFile

ROOT = "embedder.convolution.weight"
# transformers, models/bit/modeling_bit.py: `WeightStandardizedConv2d` and `BitGroupNormActivation`
# as they are called there; no config changes them.
STANDARDIZATION_EPS = 1e-8
NORM_EPS = 1e-5


def infer(tensors: Tensors, source: WeightFile) -> ResNetConfig:
    """Infer a BiT from its tensors; the image size is the processor's.

    Raises:
        ModelFileError: `config.json` describes another network.
    """
    _check_described(source)
    root, head = tensors[ROOT], tensors.get("classifier.1.weight")
    if root.ndim != 4:
        raise ModelFileError(f"{source.path}: {ROOT} has shape {tuple(root.shape)}")
    stages, width_factor = resnet_shape(
        tensors, r"encoder\.stages\.(\d+)\.layers\.(\d+)\.", root.shape[0]
    )
    size = cropped_size(source.processor or DEFAULTS["bit"]) or 224
    return ResNetConfig(
        name=name_of(stages, width_factor),
        stages=stages,
        width_factor=width_factor,
        image_size=source.stated.get("image_size") or size,
        in_channels=root.shape[1],
        num_classes=0 if head is None else len(head),
        norm_eps=NORM_EPS,
        standardization_eps=STANDARDIZATION_EPS,
    )


def entries(config: ResNetConfig) -> list[Entry]:
    """Return the entries of a BiT's tensors in a file."""
    base = "bit." if config.num_classes else ""
    found = [Entry("trunk.root.weight", (base + ROOT,), SAME), *pair("trunk.norm", f"{base}norm.")]
    for stage, count in enumerate(config.stages):
        for unit in range(count):
            ours = f"trunk.stages.{stage}.{unit}"
            theirs = f"{base}encoder.stages.{stage}.layers.{unit}."
            for part in (1, 2, 3):
                found.append(
                    Entry(f"{ours}.conv{part}.weight", (f"{theirs}conv{part}.weight",), SAME)
                )
                found += pair(f"{ours}.norm{part}", f"{theirs}norm{part}.")
            if unit == 0:
                kernel = (f"{theirs}downsample.conv.weight",)
                found.append(Entry(f"{ours}.projection.weight", kernel, SAME))
    if config.num_classes:
        found += pair("head", "classifier.1.")
    return found


def refusal(config: ResNetConfig) -> str | None:
    """Return why a model is no BiT of Hugging Face, or None."""
    reasons = {
        "is no BiT ResNet": config.version != "v2",
        f"has padding={config.padding!r}": config.padding != "fixed",
        f"has pool_padding={config.pool_padding!r}": config.pool_padding != "zero",
        "has a gain in its root": config.root_gain,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def cautions(config: ResNetConfig) -> list[str]:
    """Return what transformers will compute differently."""
    found = []
    if (config.standardization, config.standardization_eps) != ("variance", STANDARDIZATION_EPS):
        found.append(
            f"transformers standardises kernels by sqrt(variance + {STANDARDIZATION_EPS:g}), this "
            f"model by {config.standardization} with {config.standardization_eps:g}"
        )
    if config.norm_eps != NORM_EPS:
        found.append(f"transformers adds {NORM_EPS:g} in norms, this model {config.norm_eps:g}")
    return found


def describe(config: ResNetConfig) -> dict[str, Any]:
    """Return the content of a BiT's `config.json`."""
    count = len(config.stages)
    return {
        "architectures": ["BitForImageClassification" if config.num_classes else "BitModel"],
        "model_type": "bit",
        "num_channels": config.in_channels,
        "embedding_size": config.width,
        "hidden_sizes": [config.width * EXPANSION * int(2**stage) for stage in range(count)],
        "depths": list(config.stages),
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "global_padding": None,
        "num_groups": NUM_GROUPS,
        "drop_path_rate": 0.0,
        "embedding_dynamic_padding": False,
        "output_stride": max(32, config.stride),
        # Included in the widths above.
        "width_factor": 1,
    }


def _check_described(source: WeightFile) -> None:
    stated = source.config
    stride = 4 * 2 ** (len(stated.get("depths", (1,))) - 1)
    wanted = {
        "layer_type": "preactivation",
        "global_padding": None,
        "num_groups": NUM_GROUPS,
        "hidden_act": "relu",
        "embedding_dynamic_padding": False,
    }
    for name, value in wanted.items():
        if stated.get(name, value) != value:
            raise ModelFileError(
                f"config.json has {name}={stated[name]!r}, which is no BiT of its authors: only "
                f"{name}={value!r} can be loaded"
            )
    if stated.get("output_stride", 32) < stride:
        raise ModelFileError(
            f"config.json has output_stride={stated['output_stride']}: only a network that halves "
            f"its map in every stage can be loaded, {stride} here"
        )
