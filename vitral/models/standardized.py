"""Convolutions whose kernels are standardised (arXiv 1903.10520), and their padding."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitral.models.layers import init_lecun_normal
from vitral.spec.resnet import ResNetConfig

# Keeps a constant filter and its gradient from a division by zero, and changes no other.
_NO_EPS = 1e-30
# Values of a weight that are compared to see whether it was changed unseen by torch.
_SAMPLE = 64


class StandardizedConv(nn.Module):
    """A convolution without bias whose filters have mean 0 and variance 1 over their inputs.

    Where no gradient is wanted the standardised kernel is kept from call to call, until the weight
    changes or the module is switched between training and evaluation. torch counts changes but for
    writes through `weight.data`, as of an average of weights: those are seen on a few values.
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
        self._kept: Tensor | None = None
        self._kept_for: tuple[tuple[int, int, int], ...] | None = None
        self._kept_sample: Tensor | None = None

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
        own = [self.weight] if self.gain is None else [self.weight, self.gain]
        wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in own)
        if wants_gradient or torch.compiler.is_compiling() or self.weight.is_inference():
            return self.standardize(self.weight)
        state = tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in own)
        if self._kept is None or self._kept_for != state or not self._is_as_kept():
            # Not an inference tensor, which could not be part of a later backward pass.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._kept, self._kept_for = self.standardize(self.weight), state
                self._kept_sample = self._sample().clone()
        return self._kept

    def _is_as_kept(self) -> bool:
        """Say whether some of the weight's values are those that the kept kernel was made of."""
        sample = self._sample()
        return (
            self._kept_sample is not None
            and sample.dtype == self._kept_sample.dtype
            and sample.device == self._kept_sample.device
            and torch.equal(sample, self._kept_sample)
        )

    def _sample(self) -> Tensor:
        values = self.weight.detach().flatten()
        return values[:: max(1, len(values) // _SAMPLE)]

    def standardize(self, weight: Float[Tensor, "K C k k"]) -> Float[Tensor, "K C k k"]:
        """Give each filter mean 0 and variance 1 (biased), in float32 whatever the precision."""
        rows = weight.float().flatten(1)
        if self.adds_to_deviation:
            deviation = (rows.var(dim=1, correction=0, keepdim=True) + _NO_EPS).sqrt()
            own = _normalise(rows, eps=_NO_EPS) * (deviation / (deviation + self.eps))
        else:
            own = _normalise(rows, eps=self.eps)
        if self.gain is not None:
            own = own * self.gain.float().view(-1, 1)
        return own.view_as(weight).to(weight.dtype)

    def train(self, mode: bool = True) -> "StandardizedConv":
        """Switch between training and evaluation, and forget the kept kernel."""
        self._kept = self._kept_for = self._kept_sample = None
        super().train(mode)
        return self


def _normalise(rows: Tensor, *, eps: float) -> Tensor:
    """Give each row mean 0 and variance 1: the fused kernel of LayerNorm does just that."""
    return F.layer_norm(rows, rows.shape[1:], eps=eps)


def pad_to_same(
    maps: Float[Tensor, "N C H W"], *, kernel_size: int, stride: int, filling: float = 0.0
) -> Float[Tensor, "N C h w"]:
    """Pad as TensorFlow's SAME does: to ceil(side / stride) outputs, more at the end if uneven."""
    padding: list[int] = []
    for side in (maps.shape[3], maps.shape[2]):
        needed = max((-(-side // stride) - 1) * stride + kernel_size - side, 0)
        padding += [needed // 2, needed - needed // 2]
    return F.pad(maps, padding, value=filling) if any(padding) else maps
