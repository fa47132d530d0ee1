"""BiT ResNets: bottleneck units with GroupNorm, and convolutions with standardised kernels.

Source: BiT (arXiv 1912.11370), 3.2; big_transfer, bit_pytorch/models.py (version v2) and
vision_transformer, vit_jax/models_resnet.py (version v1, the stem of hybrids).
"""

from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitral.config.preprocessing import Preprocessing
from vitral.config.resnet import EXPANSION, NUM_GROUPS, ResNetConfig
from vitral.models.layers import init_lecun_normal
from vitral.models.layout import Layout, stage_depth
from vitral.models.model import Model, Run, build_head, call, zero_head
from vitral.models.position import Heads

# Prevents division by zero for a constant filter and its gradient; does not affect others.
_NO_EPS = 1e-30
# Number of a weight's values that are compared to detect changes that torch does not count.
_SAMPLE = 64


class StandardizedConv(nn.Module):
    """A convolution without bias whose filters have mean 0 and variance 1 over their inputs.

    Source: Weight Standardization (arXiv 1903.10520).

    Without gradients the standardised kernel is cached between calls, until the weight changes or
    the module is switched between training and evaluation. torch counts changes except for writes
    through `weight.data`, such as by an average of weights; a few values are compared for those.
    """

    def __init__(
        self,
        config: ResNetConfig,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        gain: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.kernel_size = stride, kernel_size
        self.pads_to_same = config.padding == "same" and kernel_size > 1
        self.adds_to_deviation = config.standardization == "deviation"
        self.eps = config.standardization_eps
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.gain = nn.Parameter(torch.empty(out_channels)) if gain else None
        self._cached: Tensor | None = None
        self._cached_state: tuple[tuple[int, int, int], ...] | None = None
        self._cached_sample: Tensor | None = None

    def init_weights(self) -> None:
        """Draw a LeCun-normal kernel; its scale has no effect."""
        init_lecun_normal(self.weight.flatten(1))
        if self.gain is not None:
            nn.init.ones_(self.gain)

    def forward(self, maps: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """Convolve."""
        padding = 0 if self.pads_to_same else self.kernel_size // 2
        if self.pads_to_same:
            maps = pad_to_same(maps, kernel_size=self.kernel_size, stride=self.stride)
        return F.conv2d(maps, self.kernel(), stride=self.stride, padding=padding)

    def kernel(self) -> Float[Tensor, "K C k k"]:
        """Return the standardised kernel."""
        tensors = [self.weight] if self.gain is None else [self.weight, self.gain]
        wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if wants_gradient or torch.compiler.is_compiling() or self.weight.is_inference():
            return self.standardize(self.weight)
        state = tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors)
        if self._cached is None or self._cached_state != state or not self._is_cache_valid():
            # An inference tensor could not be part of a later backward pass.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._cached, self._cached_state = self.standardize(self.weight), state
                self._cached_sample = self._sample().clone()
        return self._cached

    def _is_cache_valid(self) -> bool:
        """Return whether a sample of the weight equals that of the cached kernel's weight."""
        sample = self._sample()
        return (
            self._cached_sample is not None
            and sample.dtype == self._cached_sample.dtype
            and sample.device == self._cached_sample.device
            and torch.equal(sample, self._cached_sample)
        )

    def _sample(self) -> Tensor:
        values = self.weight.detach().flatten()
        return values[:: max(1, len(values) // _SAMPLE)]

    def standardize(self, weight: Float[Tensor, "K C k k"]) -> Float[Tensor, "K C k k"]:
        """Normalise each filter to mean 0 and variance 1 (biased), in float32."""
        rows = weight.float().flatten(1)
        if self.adds_to_deviation:
            deviation = (rows.var(dim=1, correction=0, keepdim=True) + _NO_EPS).sqrt()
            kernel = _normalise(rows, eps=_NO_EPS) * (deviation / (deviation + self.eps))
        else:
            kernel = _normalise(rows, eps=self.eps)
        if self.gain is not None:
            kernel = kernel * self.gain.float().view(-1, 1)
        return kernel.view_as(weight).to(weight.dtype)

    def train(self, mode: bool = True) -> "StandardizedConv":
        """Switch between training and evaluation, and clear the cached kernel."""
        self._cached = self._cached_state = self._cached_sample = None
        super().train(mode)
        return self


def _normalise(rows: Tensor, *, eps: float) -> Tensor:
    """Normalise each row to mean 0 and variance 1, with LayerNorm's fused kernel."""
    return F.layer_norm(rows, rows.shape[1:], eps=eps)


def pad_to_same(
    maps: Float[Tensor, "N C H W"], *, kernel_size: int, stride: int, filling: float = 0.0
) -> Float[Tensor, "N C h w"]:
    """Pad as TensorFlow's SAME: for ceil(side / stride) outputs, more at the end if uneven."""
    padding: list[int] = []
    for side in (maps.shape[3], maps.shape[2]):
        needed = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
        padding += [needed // 2, needed - needed // 2]
    return F.pad(maps, padding, value=filling) if any(padding) else maps


class Bottleneck(nn.Module):
    """A bottleneck unit: 1x1, 3x3 (strided) and 1x1 convolutions and a shortcut.

    Version v2 normalises before each convolution, and its projection reads the normalised input;
    version v1 normalises after each, and after the projection.
    """

    def __init__(self, config: ResNetConfig, *, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.is_v1 = config.version == "v1"
        out_width = width * EXPANSION
        widths = (in_width, width, width, out_width)
        self.conv1 = StandardizedConv(config, widths[0], widths[1], kernel_size=1)
        self.conv2 = StandardizedConv(config, widths[1], widths[2], kernel_size=3, stride=stride)
        self.conv3 = StandardizedConv(config, widths[2], widths[3], kernel_size=1)
        normed = widths[1:] if self.is_v1 else widths[:3]
        self.norm1, self.norm2, self.norm3 = (_norm(config, channels) for channels in normed)
        self.projection = None
        self.projection_norm = None
        if stride > 1 or in_width != out_width:
            self.projection = StandardizedConv(
                config, in_width, out_width, kernel_size=1, stride=stride
            )
            self.projection_norm = _norm(config, out_width) if self.is_v1 else None

    def init_weights(self) -> None:
        """Draw fresh weights; version v1 starts as its shortcut alone, as in the official code."""
        for module in self.children():
            if isinstance(module, StandardizedConv):
                module.init_weights()
            elif isinstance(module, nn.GroupNorm):
                module.reset_parameters()
        if self.is_v1:
            nn.init.zeros_(self.norm3.weight)

    def forward(self, maps: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """Add the unit's branch to its shortcut."""
        return self._after(maps) if self.is_v1 else self._before(maps)

    def _before(self, maps: Tensor) -> Tensor:
        normed = _relu(self.norm1(maps))
        shortcut = maps if self.projection is None else self.projection(normed)
        branch = self.conv1(normed)
        branch = self.conv2(_relu(self.norm2(branch)))
        return shortcut + self.conv3(_relu(self.norm3(branch)))

    def _after(self, maps: Tensor) -> Tensor:
        shortcut = maps
        if self.projection is not None and self.projection_norm is not None:
            shortcut = self.projection_norm(self.projection(maps))
        branch = _relu(self.norm1(self.conv1(maps)))
        branch = _relu(self.norm2(self.conv2(branch)))
        return _relu(shortcut + self.norm3(self.conv3(branch)))


class ResNetTrunk(nn.Module):
    """Root and stages: images to their last map."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.root = StandardizedConv(
            config, config.in_channels, config.width, kernel_size=7, stride=2, gain=config.root_gain
        )
        self.root_norm = _norm(config, config.width) if config.version == "v1" else None
        self.stages = nn.ModuleList()
        in_width = config.width
        for number, count in enumerate(config.stages):
            width = config.width * 2**number
            units = nn.ModuleList()
            for index in range(count):
                stride = 2 if number and not index else 1
                units.append(Bottleneck(config, in_width=in_width, width=width, stride=stride))
                in_width = width * EXPANSION
            self.stages.append(units)
        self.norm = _norm(config, in_width) if config.version == "v2" else None

    def init_weights(self) -> None:
        """Draw fresh weights."""
        self.root.init_weights()
        for norm in (self.root_norm, self.norm):
            if norm is not None:
                norm.reset_parameters()
        for unit in self.units():
            unit.init_weights()

    def units(self) -> Iterator[Bottleneck]:
        """Yield all units from input to output."""
        for units in self.stages:
            yield from units  # type: ignore[misc]

    @property
    def trace_names(self) -> tuple[str, ...]:
        """`root`, then `stageS/unitUU`, counted from 1 as in the official files."""
        units = [
            f"stage{number}/unit{index:02}"
            for number, count in enumerate(self.config.stages, start=1)
            for index in range(1, count + 1)
        ]
        return ("root", *units)

    def forward(
        self, images: Float[Tensor, "N C H W"], run: Run = call
    ) -> Float[Tensor, "N K h w"]:
        """Return the last map, normalised.

        Args:
            images: the model's input.
            run: calls a unit, perhaps with gradient checkpointing.
        """
        maps = self.begin(images)
        for unit in self.units():
            maps = run(unit, maps)
        return self.finish(maps)

    def walk(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the maps after the root and after each unit by name."""
        names = iter(self.trace_names)
        maps = self.begin(images)
        yield next(names), maps
        for unit in self.units():
            maps = unit(maps)
            yield next(names), maps

    def begin(self, images: Tensor) -> Tensor:
        """Run the root: convolution, and norm in version v1, then max-pool."""
        maps = self.root(images)
        if self.root_norm is not None:
            maps = _relu(self.root_norm(maps))
        filling = 0.0 if self.config.pool_padding == "zero" else float("-inf")
        if self.config.padding == "same":
            maps = pad_to_same(maps, kernel_size=3, stride=2, filling=filling)
        else:
            maps = F.pad(maps, (1, 1, 1, 1), value=filling)
        return F.max_pool2d(maps, 3, stride=2)

    def finish(self, maps: Tensor) -> Tensor:
        """Apply version v2's last norm."""
        return maps if self.norm is None else _relu(self.norm(maps))


class ResNet(Model):
    """A BiT ResNet: trunk, mean over the map, head."""

    config: ResNetConfig

    def __init__(
        self,
        config: ResNetConfig,
        *,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
        output: str = "softmax",
    ) -> None:
        super().__init__(config, preprocessing=preprocessing, classes=classes, output=output)
        self.trunk = ResNetTrunk(config)
        self.head = build_head(config)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw fresh weights; the head starts at zero."""
        self.trunk.init_weights()
        zero_head(self.head)

    def layout(self) -> Layout:
        """Return the layout of the last map."""
        return Layout(self.config.grid, (self.config.stride, self.config.stride))

    def layer_depth(self, name: str) -> int:
        """Return the depth of a parameter in the network, counted in units."""
        return stage_depth(name.removeprefix("trunk."), self.config.stages)

    def block_modules(self) -> tuple[nn.Module, ...]:
        """Return the units."""
        return tuple(self.trunk.units())

    def first_filters(self) -> Float[Tensor, "D C H W"]:
        """Return the filters of the root, standardised."""
        return self.trunk.root.kernel().detach()

    @property
    def trace_names(self) -> tuple[str, ...]:
        """The names that `trace` knows, from input to output."""
        return (*self.trunk.trace_names, "features", "logits")

    def features(
        self, images: Float[Tensor, "N C H W"], *, any_size: bool = False
    ) -> Float[Tensor, "N F"]:
        """Return what the head reads: the mean over the last map; arguments as for `forward`."""
        self.check_images(images, any_size=any_size)
        return self.trunk(images, self._run).mean(dim=(2, 3))

    def _walk(
        self, images: Tensor, wanted: Collection[str], heads: Heads
    ) -> Iterator[tuple[str, Tensor]]:
        self.check_images(images)
        maps = images
        for name, maps in self.trunk.walk(images):
            yield name, maps
        features = self.trunk.finish(maps).mean(dim=(2, 3))
        yield "features", features
        yield "logits", self.classify(features)


def _norm(config: ResNetConfig, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, channels, eps=config.norm_eps)


def _relu(fresh: Tensor) -> Tensor:
    """Apply ReLU in place, to the fresh output of a norm or a sum, which nothing else reads."""
    return F.relu(fresh, inplace=True)
