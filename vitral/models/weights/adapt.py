"""Fit a model's tensors to another resolution, number of channels or head."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing, channels_preprocessing
from vitral.config.resnet import AxialResNetConfig, ResNetConfig
from vitral.config.vit import ViTConfig
from vitral.models.position import resize_axis_table, resize_offset_table, resize_position_table
from vitral.models.resnet import StandardizedConv


@dataclass
class Fitting:
    """Tensors that are being fitted to another config, and which of them changed."""

    tensors: dict[str, Tensor]
    """By Vitral's names."""
    resized: list[str]
    """Names of those fitted to another size."""
    dropped: list[str]
    """Names of those removed: unknown in the new config, or with another meaning there."""

    def change(self, name: str, tensor: Tensor) -> None:
        """Replace a tensor, and record its name if its values differ."""
        if tensor is not self.tensors[name]:
            self.tensors[name] = tensor
            self.resized.append(name)

    def drop(self, prefix: str) -> None:
        """Remove all tensors whose names begin with the prefix."""
        names = [name for name in self.tensors if name.startswith(prefix)]
        self.dropped += names
        for name in names:
            del self.tensors[name]


def fit_tensors(
    tensors: dict[str, Tensor], *, old: ModelConfig, new: ModelConfig, preprocessing: Preprocessing
) -> Fitting:
    """Fit tensors of one config to another that differs in image size, channels or head.

    Args:
        tensors: by Vitral's names; not changed.
        old: the config that they are for.
        new: the config to fit them to; its `root_gain` is set where `with_channels` did.
        preprocessing: of the old model; its mean and std are folded into a grey stem.
    """
    fitting = Fitting(dict(tensors), [], [])
    _fit_positions(fitting, old=old, new=new)
    if old.in_channels != new.in_channels:
        _fit_stem(fitting, old=old, new=new, preprocessing=preprocessing)
    if old.representation_size and not new.representation_size:
        fitting.drop("pre_logits.")
    if not keeps_head(old, new):
        fitting.drop("head.")
    return fitting


def keeps_head(old: ModelConfig, new: ModelConfig) -> bool:
    """Return whether a head stays valid: as many classes, from the same features."""
    heads = [(c.num_classes, c.feature_dim, c.representation_size) for c in (old, new)]
    return heads[0] == heads[1]


def spread_channels(kernel: Tensor, channels: int) -> Tensor:
    """Fit a kernel (K, C, h, w) to other channels, keeping the scale of its output.

    To one channel: the sum, so that a grey image gives the same output as in RGB. To others: the
    old channels in turn, scaled by old / new.
    """
    old_channels = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    indices = torch.arange(channels) % old_channels
    return kernel[:, indices] * (old_channels / channels)


def _fit_positions(fitting: Fitting, *, old: ModelConfig, new: ModelConfig) -> None:
    for name, tensor in list(fitting.tensors.items()):
        part = name.rpartition(".")[2]
        if isinstance(old, AxialResNetConfig) and isinstance(new, AxialResNetConfig):
            if part == "offsets":
                length = _axial_length(name, new)
                table = tensor.unsqueeze(0).transpose(1, 2)
                resized = resize_axis_table(table, 2 * length - 1)
                if resized is not table:
                    fitting.change(name, resized[0].T.contiguous())
        elif isinstance(old, ViTConfig) and isinstance(new, ViTConfig):
            if not name.startswith("positions."):
                continue
            if part == "table":
                resized = resize_position_table(
                    tensor,
                    old_grid=old.grid,
                    new_grid=new.grid,
                    num_prefix_tokens=int(bool(old.class_token)),
                    method=new.position_resize,
                )
                fitting.change(name, resized)
            elif part in ("rows", "columns"):
                fitting.change(name, resize_axis_table(tensor, new.grid[part == "columns"]))
            elif part == "offsets":
                resized = resize_offset_table(tensor, old_grid=old.grid, new_grid=new.grid)
                fitting.change(name, resized)


def _axial_length(name: str, config: AxialResNetConfig) -> int:
    """Return the line length that `stages.S.U.column.offsets` or `...row...` is for."""
    _, stage, unit, axis, _ = name.split(".")
    grid = config.grids[config.map_of(int(stage), int(unit))]
    return grid[axis == "row"]


def _fit_stem(
    fitting: Fitting, *, old: ModelConfig, new: ModelConfig, preprocessing: Preprocessing
) -> None:
    stem = old.resnet if isinstance(old, ViTConfig) else old
    if isinstance(stem, ResNetConfig):
        prefix = "embedding.resnet.root" if isinstance(old, ViTConfig) else "trunk.root"
        _fit_standardized(fitting, prefix, stem, new.in_channels)
        return
    name = "root.weight" if isinstance(old, AxialResNetConfig) else "embedding.weight"
    needed = {name, "embedding.bias"} if isinstance(old, ViTConfig) else {name}
    if not needed <= fitting.tensors.keys():
        # Allowed by `strict=False`: the whole stem is fresh then.
        fitting.drop(name.removesuffix("weight"))
        return
    kernel = fitting.tensors[name]
    if new.in_channels == 1 and isinstance(old, ViTConfig):
        kernel, shift = _grey(kernel, preprocessing)
        fitting.change("embedding.bias", fitting.tensors["embedding.bias"] + shift)
    else:
        kernel = spread_channels(kernel, new.in_channels)
    fitting.change(name, kernel)


def _grey(kernel: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Return the kernel for grey images and a correction of the bias; exact for R = G = B.

    They account for the difference between the channels' means and deviations and the grey ones.
    """
    grey = channels_preprocessing(preprocessing, 1)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    summed = (kernel * (grey.std[0] / std)).sum(dim=1, keepdim=True)
    return summed, (kernel * ((grey.mean[0] - mean) / std)).sum(dim=(1, 2, 3))


def _fit_standardized(fitting: Fitting, prefix: str, config: ResNetConfig, channels: int) -> None:
    """Fit a standardised root: its standardised filters, with a gain that undoes the new scale."""
    name = f"{prefix}.weight"
    if name not in fitting.tensors:
        return
    kernel = fitting.tensors[name]
    convolution = StandardizedConv(
        config, kernel.shape[1], kernel.shape[0], kernel_size=kernel.shape[2], gain=config.root_gain
    )
    if convolution.gain is not None:
        convolution.gain.data = fitting.tensors[f"{prefix}.gain"]
    acting = spread_channels(convolution.standardize(kernel).detach(), channels)
    deviation = acting.std(dim=(1, 2, 3), correction=0)
    if convolution.adds_to_deviation:
        gain = deviation + convolution.eps
    else:
        gain = (deviation.square() + convolution.eps).sqrt()
    fitting.change(name, acting)
    fitting.tensors[f"{prefix}.gain"] = gain
    fitting.resized.append(f"{prefix}.gain")
