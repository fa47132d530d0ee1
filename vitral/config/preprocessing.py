"""How images are prepared for a model; stored with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from vitral.config.checks import check_choice
from vitral.errors import RequestError, nearest

if TYPE_CHECKING:
    from vitral.config.model import ModelConfig

RESIZES = ("squash", "shorter")
GEOMETRIES = ("torchvision", "huggingface", "tensorflow")
INTERPOLATIONS = ("bilinear", "bicubic", "area")
ROUNDINGS = ("round", "truncate", "none")


@dataclass(frozen=True)
class Preprocessing:
    """How a decoded image becomes the model's input.

    The input is (pixel / 255 - mean) / std, NCHW, float.
    """

    size: tuple[int, int]
    """Height and width in pixels of what the model gets."""
    resize: str = "shorter"
    """"shorter": keep the aspect ratio and cover the target; "squash": both sides, ignoring the
    ratio. The target is `size` / `crop_share`, of which the central `size` is then cut."""
    crop_share: float = 1.0
    """Sides of the central crop as a share of the sides resized to, which are rounded down as in
    timm: 0.875 or 224 / 256 resizes to 256 for a crop of 224."""
    geometry: str = "torchvision"
    """Whose rule rounds the longer side and the crop's corner. "torchvision" (and timm): the side
    down (to the nearest where `size` is not square), the corner to the nearest, halves to even.
    "huggingface": both down. "tensorflow" (big_vision, vit_jax): the side to the nearest, the
    corner down."""
    interpolation: str = "bilinear"
    """"bilinear", "bicubic", or "area": the average over the area that a pixel covers, fractions
    counted, as TensorFlow has it (big_vision's `resize_small`), always with antialias."""
    antialias: bool = True
    """Whether shrinking averages over all pixels that fall into one; the official code does not."""
    rounding: str = "round"
    """Pixel values after resizing: "round": to the nearest integer, as Pillow does; "truncate": to
    the integer below (big_vision, vit_jax's PreprocessImages); "none": not rounded (the official
    input pipeline)."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Subtracted from each channel, in units where white is 1."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Divides each channel after that."""
    channels: int = 3
    """1: grey, 2: grey and alpha, 3: RGB, 4: RGBA; others only from arrays."""
    levels: tuple[float, float] | None = None
    """The values that are black and white in images of more than eight bits; values beyond are
    clipped. None: the full range of the type (0..65535 of 16 bits), 0..1 for floats. Does not apply
    to images of eight bits."""

    def __post_init__(self) -> None:
        check_choice(RESIZES, resize=self.resize)
        check_choice(GEOMETRIES, geometry=self.geometry)
        check_choice(INTERPOLATIONS, interpolation=self.interpolation)
        check_choice(ROUNDINGS, rounding=self.rounding)
        if not 0 < self.crop_share <= 1:
            raise RequestError(f"crop_share={self.crop_share}: give a share above 0, at most 1")
        if not len(self.mean) == len(self.std) == self.channels:
            raise RequestError(
                f"mean={self.mean} and std={self.std} must have one value for each of "
                f"channels={self.channels}"
            )
        if not all(value > 0 for value in self.std):
            raise RequestError(f"std={self.std} must be above 0")
        if self.levels and not self.levels[0] < self.levels[1]:
            raise RequestError(f"levels={self.levels}: give black, then white, a larger value")


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """Return a description in one line."""
    height, width = preprocessing.size
    share = "" if preprocessing.crop_share == 1 else f", {preprocessing.crop_share:.3g} of it cut"
    how = preprocessing.interpolation + ("" if preprocessing.antialias else " without antialias")
    mean, std = (
        ",".join(f"{v:g}" for v in values) for values in (preprocessing.mean, preprocessing.std)
    )
    return f"{preprocessing.resize} to {height} x {width}{share}, {how}, mean {mean}, std {std}"


def change_preprocessing(default: Preprocessing, changes: Mapping[str, Any]) -> Preprocessing:
    """Return a model's preprocessing with some fields replaced.

    Raises:
        RequestError: an unknown field, a bad value, or one that the model itself decides.
    """
    known = [field.name for field in fields(Preprocessing)]
    for name in changes:
        if name not in known:
            raise RequestError(f"preprocessing has no field {name!r}{nearest(name, known)}")
    for name in ("size", "channels"):
        if name in changes and changes[name] != getattr(default, name):
            raise RequestError(
                f"preprocessing.{name}={changes[name]} is the model's to decide, which takes "
                f"{getattr(default, name)}: convert it to another (`vitral convert --image-size`)"
            )
    return replace(default, **changes)


def describe_change(default: Preprocessing, other: Preprocessing) -> str:
    """Return one line on which preprocessing is used instead of the model's own."""
    changed = [
        f.name for f in fields(default) if getattr(default, f.name) != getattr(other, f.name)
    ]
    differences = ", ".join(
        f"{n}={getattr(other, n)} instead of {getattr(default, n)}" for n in changed
    )
    return (
        f"not the model's own preprocessing ({describe_preprocessing(default)}) but another one "
        f"({describe_preprocessing(other)}): {differences}"
    )


def default_preprocessing(
    size: tuple[int, int], *, channels: int, **settings: Any
) -> Preprocessing:
    """Return the preprocessing of models trained here: values in [-1, 1], as officially."""
    half = (0.5,) * channels
    return Preprocessing(size=size, channels=channels, mean=half, std=half, **settings)


def preprocessing_from(stored: dict[str, Any]) -> Preprocessing:
    """Build a Preprocessing from plain data such as JSON, where tuples are lists.

    Data from before `rounding` was a field implies "none" where `antialias` is False.
    """
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    if plain.get("antialias") is False:
        plain.setdefault("rounding", "none")
    return Preprocessing(**plain)


def channels_preprocessing(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Return the preprocessing for another number of channels.

    Means and deviations are repeated in turn; a single channel gets their average.
    """

    def spread(values: tuple[float, ...]) -> tuple[float, ...]:
        if channels == 1:
            return (sum(values) / len(values),)
        return tuple(values[channel % len(values)] for channel in range(channels))

    return replace(
        preprocessing,
        channels=channels,
        mean=spread(preprocessing.mean),
        std=spread(preprocessing.std),
    )


# Statistics of ImageNet's training images, as in torchvision and timm (IMAGENET_DEFAULT_MEAN).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def imagenet_preprocessing(
    config: ModelConfig, *, interpolation: str, crop_share: float
) -> Preprocessing:
    """Return the usual ImageNet evaluation: resized shorter side, central crop, ImageNet's mean."""
    preprocessing = Preprocessing(
        size=config.image_hw,
        crop_share=crop_share,
        interpolation=interpolation,
        mean=MEAN,
        std=STD,
    )
    if config.in_channels == len(MEAN):
        return preprocessing
    return channels_preprocessing(preprocessing, config.in_channels)
