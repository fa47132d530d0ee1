"""Configs of the paper's convolutional networks: BiT ResNets, stems of hybrids, AxialResNets."""

from dataclasses import dataclass, replace

from vitral.config.checks import (
    Size,
    as_pair,
    check_choice,
    check_not_negative,
    check_positive,
    check_types,
)
from vitral.config.cost import AXIAL_FACTOR, stage_activations
from vitral.errors import RequestError

VERSIONS = ("v2", "v1")
STANDARDIZATIONS = ("variance", "deviation")
PADDINGS = ("fixed", "same")
POOL_PADDINGS = ("zero", "infinite")
NUM_GROUPS = 32
EXPANSION = 4
"""Output channels of a bottleneck unit for each of its inner channels."""
# What the official hybrids use instead of BiT's (vision_transformer, models_resnet.py).
V1_FIELDS = {
    "version": "v1",
    "norm_eps": 1e-6,
    "standardization": "deviation",
    "standardization_eps": 1e-5,
    "padding": "same",
    "pool_padding": "infinite",
}


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet with GroupNorm and weight standardisation, the paper's "ResNet (BiT)".

    The defaults are those of the BiT authors (big_transfer, bit_pytorch/models.py).
    """

    name: str
    """Such as `R50x1`; for display, nothing is derived from it."""
    stages: tuple[int, ...]
    """Bottleneck units of each stage; each stage but the first halves the grid. (): root only."""
    width_factor: float
    """Multiplies all channels: the "x3" of `R50x3`."""
    image_size: Size = 224
    """Pixels of the input: the side of a square, or (height, width)."""
    in_channels: int = 3
    """Channels of the input image."""
    num_classes: int = 1000
    """Width of the logits; 0: no head, the model returns its features."""
    version: str = "v2"
    """"v2": pre-activation units, as BiT; "v1": post-activation, as the stems of hybrids."""
    norm_eps: float = 1e-5
    """Added to the variance in every GroupNorm (32 groups)."""
    standardization: str = "variance"
    """Kernels are (w - mean) / sqrt(var + eps), or "deviation": (w - mean) / (std + eps)."""
    standardization_eps: float = 1e-10
    """The eps of `standardization`."""
    padding: str = "fixed"
    """"fixed": half a kernel on each side; "same": TensorFlow's, more at the end when uneven."""
    pool_padding: str = "zero"
    """Padding value of the root's max-pool: "zero" (BiT's authors) or "infinite": -inf."""
    root_gain: bool = False
    """Whether the root convolution has a factor for each filter. A stem that is adapted to other
    channels has: standardising the new kernel alone would lose the filters' scales."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", as_pair(self.image_size, name="image_size"))
        check_types(self)
        object.__setattr__(self, "stages", tuple(self.stages))
        check_positive(
            width_factor=self.width_factor, in_channels=self.in_channels, norm_eps=self.norm_eps,
            standardization_eps=self.standardization_eps,
        )  # fmt: skip
        check_not_negative(num_classes=self.num_classes)
        check_choice(VERSIONS, version=self.version)
        check_choice(STANDARDIZATIONS, standardization=self.standardization)
        check_choice(PADDINGS, padding=self.padding)
        check_choice(POOL_PADDINGS, pool_padding=self.pool_padding)
        if not all(isinstance(units, int) and units > 0 for units in self.stages):
            raise RequestError(f"stages={self.stages}: give the number of units of each stage")
        if self.version == "v2" and not self.stages:
            raise RequestError("stages=(): a network of version v2 needs at least one stage")
        width = 64 * self.width_factor
        if width % NUM_GROUPS:
            raise RequestError(
                f"width_factor={self.width_factor:g} gives {width:g} channels, which "
                f"{NUM_GROUPS} groups do not divide: use a multiple of 0.5"
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        assert isinstance(self.image_size, tuple)
        return self.image_size

    @property
    def width(self) -> int:
        """Channels of the root, and inner channels of the first stage's units."""
        return round(64 * self.width_factor)

    @property
    def feature_dim(self) -> int:
        """Channels of the last map, which is what the head reads."""
        if not self.stages:
            return self.width
        return self.width * EXPANSION * int(2 ** (len(self.stages) - 1))

    @property
    def stride(self) -> int:
        """Pixels of the input for each position of the last map; root and pool have stride 4."""
        return 4 * int(2 ** max(len(self.stages) - 1, 0))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last map; each halving rounds up."""
        return self.grid_at(self.image_hw)

    def grid_at(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of the last map of images of another size."""
        height, width = image_hw
        return (-(-height // self.stride), -(-width // self.stride))

    @property
    def representation_size(self) -> int:
        """0: a ResNet has no layer before its head."""
        return 0

    def with_channels(self, in_channels: int) -> "ResNetConfig":
        """Return the config for weights that are adapted to other channels.

        The root gets a gain, since weight standardisation would lose the adapted filters' scales.
        """
        return replace(self, in_channels=in_channels, root_gain=True)

    def num_activations(self) -> float:
        """Return the number of activations that one image keeps for the backward pass."""
        return stage_activations(self.stages, self.width, self.image_hw)

    def uncovered_pixels_note(self) -> None:
        """Return None: convolutions leave no pixels out."""


AXIAL_EXPANSION = 2
"""Output channels of a unit for each channel of its attention."""


@dataclass(frozen=True)
class AxialResNetConfig:
    """The AxialResNet of the paper's appendix D.6, after axial-deeplab (arXiv 2003.07853).

    The paper does not say which width it used: `AxialResNet50s` and `AxialResNet50l` are both here.
    """

    name: str
    """Such as `AxialResNet50s`; for display, nothing is derived from it."""
    stages: tuple[int, ...]
    """Units of each stage; each stage but the first halves the grid."""
    width_factor: float
    """Multiplies all channels but the root's 64 x this: 0.5 is "s", 0.75 "m", 1 "l"."""
    num_groups: int = 8
    """Attention heads of each axial layer."""
    image_size: Size = 224
    """Pixels of the input: the side of a square, or (height, width)."""
    in_channels: int = 3
    """Channels of the input image."""
    num_classes: int = 1000
    """Width of the logits; 0: no head, the model returns its features."""
    norm_eps: float = 1e-5
    """Added to the variance in every BatchNorm."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", as_pair(self.image_size, name="image_size"))
        check_types(self)
        object.__setattr__(self, "stages", tuple(self.stages))
        check_positive(
            width_factor=self.width_factor, num_groups=self.num_groups,
            in_channels=self.in_channels, norm_eps=self.norm_eps,
        )  # fmt: skip
        check_not_negative(num_classes=self.num_classes)
        if not self.stages or not all(isinstance(n, int) and n > 0 for n in self.stages):
            raise RequestError(f"stages={self.stages}: give the number of units of each stage")
        width = 128 * self.width_factor
        if width % (2 * self.num_groups):
            raise RequestError(
                f"width_factor={self.width_factor:g} gives {width:g} channels, which "
                f"num_groups={self.num_groups} groups of keys and values do not divide: use "
                "another width_factor, such as 0.5 or 1"
            )
        if 0 in self.grids[-1]:
            raise RequestError(
                f"image_size={self.image_size} leaves nothing of the last map: give sides of at "
                f"least {2 ** (len(self.stages) + 1)}"
            )

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        assert isinstance(self.image_size, tuple)
        return self.image_size

    @property
    def feature_dim(self) -> int:
        """Channels of the last map, which is what the head reads."""
        return round(128 * self.width_factor) * AXIAL_EXPANSION * int(2 ** (len(self.stages) - 1))

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each stage's output.

        Halving rounds up in the root (padded) and down after it (an average over whole squares).
        """
        height, width = (-(-side // 4) for side in self.image_hw)
        return tuple((height >> n, width >> n) for n in range(len(self.stages)))

    def map_of(self, stage: int, unit: int) -> int:
        """Return the stage whose output a unit attends over: for a first unit, the one before."""
        return stage - 1 if stage and not unit else stage

    @property
    def representation_size(self) -> int:
        """0: an AxialResNet has no layer before its head."""
        return 0

    def with_channels(self, in_channels: int) -> "AxialResNetConfig":
        """Return the config for weights that are adapted to other channels."""
        return replace(self, in_channels=in_channels)

    def num_activations(self) -> float:
        """Return the number of activations that one image keeps for the backward pass."""
        width = round(128 * self.width_factor)
        return AXIAL_FACTOR * stage_activations(self.stages, width, self.image_hw)

    def uncovered_pixels_note(self) -> str | None:
        """Return a note on the map positions that halving leaves out, or None."""
        height, width = (-(-side // 4) for side in self.image_hw)
        factor = 2 ** (len(self.stages) - 1)
        if height % factor == 0 and width % factor == 0:
            return None
        return (
            f"images of {self.image_hw[0]} x {self.image_hw[1]} give maps of odd sides, whose last "
            f"row or column is left out when they are halved: sides that {4 * factor} divides lose "
            "nothing"
        )
