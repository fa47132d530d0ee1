"""Hugging Face's `preprocessor_config.json`: a model's preprocessing."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from vitral.config.preprocessing import Preprocessing

_log = logging.getLogger("vitral")

# Pillow's numbers of filters. Lanczos (1) and Hamming (5) are read as the nearest supported ones.
_INTERPOLATIONS = {
    0: "bilinear", 1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "area", 5: "bilinear",
}  # fmt: skip
_NEAREST_WE_HAVE = {0: "the nearest pixel", 1: "Lanczos", 5: "Hamming"}
# Its default processors, which use torchvision, have no area filter.
_RESAMPLES = {"bilinear": 2, "bicubic": 3, "area": 2}
# Processors for which a plain number is the shorter side; for the others it is both sides.
_SHORTER = ("Bit", "ConvNext", "CLIP")
# ConvNext's processors resize without a crop for this size and above.
_CONVNEXT_SQUASH = 384
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

# The processors of each type's published weights, for files without one.
DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"size": {"height": 224, "width": 224}, "resample": 2, **_HALF},
    "vit_mae": {"size": {"height": 224, "width": 224}, "resample": 2, **_IMAGENET},
    "deit": {
        "size": {"height": 256, "width": 256}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, **_IMAGENET,
    },
    "dinov2": {
        "size": {"shortest_edge": 256}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, **_IMAGENET,
    },
    "bit": {
        "size": {"shortest_edge": 448}, "resample": 2, "do_center_crop": True,
        "crop_size": {"height": 448, "width": 448}, **_HALF,
    },
}  # fmt: skip


def read_processor(
    processor: Mapping[str, Any], *, size: tuple[int, int], channels: int
) -> Preprocessing:
    """Return the preprocessing that a processor describes.

    What is not supported becomes the nearest that is: images that the processor would not resize or
    crop are made to fit, and Lanczos becomes bicubic.

    Args:
        processor: content of the file.
        size: of the model's input; the processor's own size only determines the share that is cut.
        channels: of the model's input.
    """
    resample = processor.get("resample", 2)
    if resample in _NEAREST_WE_HAVE:
        _log.warning(
            "the weights' images are resized by %s there; here by %s, which is near",
            _NEAREST_WE_HAVE[resample],
            _INTERPOLATIONS[resample],
        )
    resize, resized = _resized(processor)
    crop = cropped_size(processor) or resized
    if crop[0] * resized[1] != crop[1] * resized[0]:
        _log.warning(
            "the weights' images are cut to %d x %d of %d x %d there, which has no place here: "
            "they will see more or less of an image than in training",
            *crop,
            *resized,
        )
    mean, std = _normalization(processor, channels)
    return Preprocessing(
        size=size,
        channels=channels,
        resize=resize,
        crop_share=min(1.0, crop[0] / resized[0]),
        geometry="huggingface",
        interpolation=_INTERPOLATIONS.get(resample, "bilinear"),
        mean=mean,
        std=std,
    )


def cropped_size(processor: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of a processor's central crop, if it has one."""
    if "crop_pct" in processor and "shortest_edge" in _as_mapping(processor):
        side = int(_as_mapping(processor)["shortest_edge"])
        return (side, side)
    if not processor.get("do_center_crop"):
        return None
    crop = processor.get("crop_size") or 224
    if isinstance(crop, Mapping):
        return (int(crop["height"]), int(crop["width"]))
    return (int(crop), int(crop))


def write_processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of the file for a preprocessing.

    It can't express resizing by area or without antialias, which become bilinear with antialias,
    nor a crop that is not square of images that keep their shape: those cover its longer side.
    """
    for what in _without_place(preprocessing):
        _log.warning("%s has no place in Hugging Face's preprocessor_config.json", what)
    height, width = preprocessing.size
    to_height, to_width = (math.floor(s / preprocessing.crop_share + 1e-6) for s in (height, width))
    written: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": to_height, "width": to_width},
        "resample": _RESAMPLES[preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    if preprocessing.channels == 3:
        written["do_convert_rgb"] = True
    if preprocessing.resize == "shorter" or (to_height, to_width) != (height, width):
        written["image_processor_type"] = "DeiTImageProcessor"
        written |= {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
    if preprocessing.resize == "shorter":
        written["image_processor_type"] = "BitImageProcessor"
        written["size"] = {"shortest_edge": max(to_height, to_width)}
    return written


def _without_place(preprocessing: Preprocessing) -> list[str]:
    reasons = {
        "resizing by area": preprocessing.interpolation == "area",
        "resizing without antialias": not preprocessing.antialias,
        "a crop that is no square": preprocessing.resize == "shorter"
        and preprocessing.size[0] != preprocessing.size[1],
    }
    return [reason for reason, holds in reasons.items() if holds]


def _as_mapping(processor: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `size` as a mapping; older files have a plain number."""
    size = processor.get("size") or 224
    if isinstance(size, Mapping):
        return size
    kind = processor.get("image_processor_type") or processor.get("feature_extractor_type") or ""
    if isinstance(size, int):
        if kind.startswith(_SHORTER):
            return {"shortest_edge": size}
        return {"height": size, "width": size}
    return {"height": size[0], "width": size[-1]}


def _resized(processor: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
    """Return how images are resized, and the target height and width, equal for "shorter"."""
    size = _as_mapping(processor)
    if "shortest_edge" not in size:
        return "squash", (int(size["height"]), int(size["width"]))
    side = int(size["shortest_edge"])
    if "crop_pct" in processor:
        if side >= _CONVNEXT_SQUASH:
            return "squash", (side, side)
        side = int(side / processor["crop_pct"])
    return "shorter", (side, side)


def _normalization(
    processor: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation in units where white is 1, whatever the processor's scale."""
    white = 255.0 * processor.get("rescale_factor", 1 / 255)
    if not processor.get("do_rescale", True):
        white = 255.0
    if abs(white - 1) < 1e-6:
        white = 1.0
    mean, std = processor.get("image_mean", 0.5), processor.get("image_std", 0.5)
    if not processor.get("do_normalize", True):
        mean, std = 0.0, 1.0
    return _spread(mean, white, channels), _spread(std, white, channels)


def _spread(values: Any, white: float, channels: int) -> tuple[float, ...]:
    """Return a value for each channel: the average if there are other channels than the model's."""
    per_channel = list(values) if isinstance(values, list | tuple) else [values] * channels
    if len(per_channel) != channels:
        per_channel = [sum(per_channel) / len(per_channel)] * channels
    return tuple(float(value) / white for value in per_channel)
