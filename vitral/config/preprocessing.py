"""What an image must become before a model sees it; travels with the weights."""

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
    """The way from a decoded image to the model's input.

    The input is (pixel / 255 - mean) / std, NCHW, float.
    """

    size: tuple[int, int]
    """Height and width in pixels of what the model gets."""
    resize: str = "shorter"
    """"shorter": keep the aspect ratio and cover; "squash": both sides, whatever the ratio. To
    `size` / `crop_share`, of which the central `size` is then cut."""
    crop_share: float = 1.0
    """Sides of the central crop as a share of the sides resized to, which are rounded down as in
    timm: 0.875 or 224 / 256 resizes to 256 for a crop of 224."""
    geometry: str = "torchvision"
    """Whose rule makes the longer side and the crop's corner whole. "torchvision" (and timm): the
    side down (to the nearest where `size` is no square), the corner to the nearest, halves to even.
    "huggingface": both down. "tensorflow" (big_vision, vit_jax): the side to the nearest, the
    corner down."""
    interpolation: str = "bilinear"
    """"bilinear", "bicubic", or "area": the average over the area that a pixel covers, fractions
    counted, as TensorFlow has it (big_vision's `resize_small`), always with antialias."""
    antialias: bool = True
    """Whether shrinking averages over all pixels that fall into one; the official code does not."""
    rounding: str = "round"
    """Grey levels after resizing: "round": to whole ones, as Pillow does; "truncate": to the whole
    ones below (big_vision, vit_jax's PreprocessImages); "none": as they come (the official input
    pipeline)."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Subtracted from each channel, in units where white is 1."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Divides each channel after that."""
    channels: int = 3
    """1: grey, 2: grey and alpha, 3: RGB, 4: RGBA; others only from arrays."""
    levels: tuple[float, float] | None = None
    """The values that are black and white in images of more than eight bits, beyond which they are
    cut off; None: all that the type holds (0..65535 of 16 bits), 0..1 for floats. Images of eight
    bits are not concerned."""

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
    """Say in a line what becomes of an image."""
    height, width = preprocessing.size
    share = "" if preprocessing.crop_share == 1 else f", {preprocessing.crop_share:.3g} of it cut"
    how = preprocessing.interpolation + ("" if preprocessing.antialias else " without antialias")
    mean, std = (",".join(f"{v:g}" for v in own) for own in (preprocessing.mean, preprocessing.std))
    return f"{preprocessing.resize} to {height} x {width}{share}, {how}, mean {mean}, std {std}"


def change_preprocessing(own: Preprocessing, changes: Mapping[str, Any]) -> Preprocessing:
    """Return a model's preprocessing with other values for some fields.

    Raises:
        RequestError: an unknown field, a bad value, or one that the model itself decides.
    """
    known = [field.name for field in fields(Preprocessing)]
    for name in changes:
        if name not in known:
            raise RequestError(f"preprocessing has no field {name!r}{nearest(name, known)}")
    for name in ("size", "channels"):
        if name in changes and changes[name] != getattr(own, name):
            raise RequestError(
                f"preprocessing.{name}={changes[name]} is the model's to decide, which takes "
                f"{getattr(own, name)}: convert it to another (`vitral convert --image-size`)"
            )
    return replace(own, **changes)


def describe_change(own: Preprocessing, other: Preprocessing) -> str:
    """Say in a line which preprocessing is used instead of the model's own."""
    changed = [f.name for f in fields(own) if getattr(own, f.name) != getattr(other, f.name)]
    said = ", ".join(f"{n}={getattr(other, n)} instead of {getattr(own, n)}" for n in changed)
    return (
        f"not the model's own preprocessing ({describe_preprocessing(own)}) but another one "
        f"({describe_preprocessing(other)}): {said}"
    )


def default_preprocessing(size: tuple[int, int], *, channels: int, **further: Any) -> Preprocessing:
    """Return the preprocessing of models trained here: values in [-1, 1], as the official ones."""
    half = (0.5,) * channels
    return Preprocessing(size=size, channels=channels, mean=half, std=half, **further)


def preprocessing_from(stored: dict[str, Any]) -> Preprocessing:
    """Build a Preprocessing from plain data such as JSON, where tuples are lists.

    In data from before `rounding` was a field, nothing was rounded without antialias.
    """
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    if plain.get("antialias") is False:
        plain.setdefault("rounding", "none")
    return Preprocessing(**plain)


def channels_preprocessing(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Return the preprocessing for other channels: means repeat in turn; grey has their average."""

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


# Of ImageNet's training images, as torchvision and timm (IMAGENET_DEFAULT_MEAN) have them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def imagenet_preprocessing(
    config: ModelConfig, *, interpolation: str, crop_share: float
) -> Preprocessing:
    """Return the usual evaluation: the shorter side resized, the centre cut, ImageNet's mean."""
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
