"""AxialResNet: a ResNet that attends along one axis at a time instead of convolving 3x3.

Source: ViT paper, D.6, after axial-deeplab (arXiv 2003.07853, section 3.2 and
lib/models/axialnet.py).
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitral.config.checks import show_size
from vitral.config.preprocessing import Preprocessing
from vitral.config.resnet import AXIAL_EXPANSION, AxialResNetConfig
from vitral.errors import RequestError
from vitral.models.layout import AttentionLayer, Kind, Layout, stage_depth
from vitral.models.model import Model, build_head, zero_head
from vitral.models.position import Heads

_KINDS: tuple[Kind, ...] = ("column", "row")


class AxialAttention(nn.Module):
    """Attention along the last axis, position-sensitive: offsets act on queries, keys and values.

    A group's queries and keys have half the width of its values. The three kinds of logits
    (content, query with offset, key with offset) and the two kinds of outputs (content, offset)
    are each batch-normalised, then summed.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, groups: int, length: int, norm_eps: float
    ) -> None:
        """Build it.

        Args:
            in_channels: of the input.
            out_channels: of the output.
            groups: attention heads.
            length: positions of a line; the table has the offsets of all pairs.
            norm_eps: of the batch norms.
        """
        super().__init__()
        self.groups = groups
        self.value_dim = out_channels // groups
        self.key_dim = self.value_dim // 2
        self.qkv = nn.Conv1d(in_channels, 2 * out_channels, kernel_size=1, bias=False)
        self.qkv_norm = nn.BatchNorm1d(2 * out_channels, eps=norm_eps)
        self.logits_norm = nn.BatchNorm2d(3 * groups, eps=norm_eps)
        self.content_norm = nn.BatchNorm1d(out_channels, eps=norm_eps)
        self.offset_norm = nn.BatchNorm1d(out_channels, eps=norm_eps)
        # The vectors of an offset for queries, keys and values, concatenated.
        self.offsets = nn.Parameter(torch.empty(2 * self.value_dim, 2 * length - 1))

    def init_weights(self) -> None:
        """Draw normal kernels and offsets; norms start as the identity."""
        nn.init.normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)
        nn.init.normal_(self.offsets, std=self.value_dim**-0.5)
        for norm in (self.qkv_norm, self.logits_norm, self.content_norm, self.offset_norm):
            norm.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        """Return the name of the table."""
        return {"offsets"}

    def forward(self, lines: Float[Tensor, "M C A"]) -> Float[Tensor, "M K A"]:
        """Apply attention along each line."""
        query, key, value = self._project(lines)
        _, _, value_offsets = self._offset_vectors(lines.shape[2])
        attention = self._attention(query, key)
        content = torch.einsum("mgij,mgcj->mgci", attention, value).flatten(1, 2)
        by_offset = torch.einsum("mgij,cij->mgci", attention, value_offsets).flatten(1, 2)
        return self.content_norm(content) + self.offset_norm(by_offset)

    def weights(
        self, lines: Float[Tensor, "M C A"], heads: Heads = None
    ) -> Float[Tensor, "M groups A A"]:
        """Return the attention of some groups (None: all); rows are queries and sum to 1."""
        query, key, _ = self._project(lines)
        attention = self._attention(query, key)
        return attention if heads is None else attention[:, list(heads)]

    def _project(self, lines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = self.qkv_norm(self.qkv(lines)).unflatten(1, (self.groups, -1))
        query, key, value = projected.split([self.key_dim, self.key_dim, self.value_dim], dim=2)
        return query, key, value

    def _attention(self, query: Tensor, key: Tensor) -> Tensor:
        query_offsets, key_offsets, _ = self._offset_vectors(query.shape[3])
        logits = [
            torch.einsum("mgci,mgcj->mgij", query, key),
            torch.einsum("mgci,cij->mgij", query, query_offsets),
            # Key i, query j: transposed to put the query first.
            torch.einsum("mgci,cij->mgji", key, key_offsets),
        ]
        normed = self.logits_norm(torch.cat(logits, dim=1))
        return normed.unflatten(1, (3, self.groups)).sum(dim=1).softmax(dim=-1)

    def _offset_vectors(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the vectors (c, A, A) of the offset from position i to position j."""
        position = torch.arange(length, device=self.offsets.device)
        offset = position[None, :] - position[:, None] + self.offsets.shape[1] // 2
        vectors = self.offsets[:, offset]
        query, key, value = vectors.split([self.key_dim, self.key_dim, self.value_dim])
        return query, key, value


class AxialUnit(nn.Module):
    """1x1 convolution, attention down the columns, attention along the rows, 1x1 convolution."""

    def __init__(
        self,
        config: AxialResNetConfig,
        *,
        in_width: int,
        width: int,
        grid: tuple[int, int],
        stride: int,
    ) -> None:
        super().__init__()
        self.stride = stride
        out_width = width * AXIAL_EXPANSION
        self.conv1 = nn.Conv2d(in_width, width, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width, eps=config.norm_eps)
        self.column, self.row = (
            AxialAttention(
                width, width, groups=config.num_groups, length=length, norm_eps=config.norm_eps
            )
            for length in grid
        )
        self.conv2 = nn.Conv2d(width, out_width, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_width, eps=config.norm_eps)
        self.projection = None
        if stride > 1 or in_width != out_width:
            convolution = nn.Conv2d(in_width, out_width, kernel_size=1, stride=stride, bias=False)
            self.projection = nn.Sequential(
                convolution, nn.BatchNorm2d(out_width, eps=config.norm_eps)
            )

    def init_weights(self) -> None:
        """Draw fresh weights; the unit starts as its shortcut alone."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self.column.init_weights()
        self.row.init_weights()
        nn.init.zeros_(self.norm2.weight)

    def forward(self, maps: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K h w"]:
        """Add the unit's branch to its shortcut."""
        branch = self._row(self._column(F.relu(self.norm1(self.conv1(maps)))))
        if self.stride > 1:
            branch = F.avg_pool2d(branch, self.stride)
        branch = self.norm2(self.conv2(F.relu(branch)))
        shortcut = maps if self.projection is None else self.projection(maps)
        # The average leaves out an odd last row or column, so the shortcut does too.
        return F.relu(shortcut[:, :, : branch.shape[2], : branch.shape[3]] + branch)

    def attention_weights(
        self, maps: Float[Tensor, "N C H W"], heads: Heads = None
    ) -> tuple[Float[Tensor, "N H groups W W"], Float[Tensor, "N W groups H H"]]:
        """Return the attention along rows and down columns, of some groups (None: all)."""
        maps = F.relu(self.norm1(self.conv1(maps)))
        lines = (maps.shape[0], -1)
        columns = self.column.weights(_columns(maps), heads).unflatten(0, lines)
        rows = self.row.weights(_rows(self._column(maps)), heads).unflatten(0, lines)
        return rows, columns

    def _column(self, maps: Tensor) -> Tensor:
        done = self.column(_columns(maps)).unflatten(0, (maps.shape[0], -1))
        return done.permute(0, 2, 3, 1)

    def _row(self, maps: Tensor) -> Tensor:
        done = self.row(_rows(maps)).unflatten(0, (maps.shape[0], -1))
        return done.permute(0, 2, 1, 3)


class AxialResNet(Model):
    """A convolutional root, stages of axial units, mean over the map, head."""

    config: AxialResNetConfig

    def __init__(
        self,
        config: AxialResNetConfig,
        *,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
        output: str = "softmax",
    ) -> None:
        super().__init__(config, preprocessing=preprocessing, classes=classes, output=output)
        width = round(64 * config.width_factor)
        self.root = nn.Conv2d(
            config.in_channels, width, kernel_size=7, stride=2, padding=3, bias=False
        )
        self.root_norm = nn.BatchNorm2d(width, eps=config.norm_eps)
        self.stages = nn.ModuleList(_build_stages(config, in_width=width))
        self.head = build_head(config)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw fresh weights; the head starts at zero."""
        nn.init.kaiming_normal_(self.root.weight, mode="fan_out", nonlinearity="relu")
        self.root_norm.reset_parameters()
        for unit in self.units():
            unit.init_weights()
        zero_head(self.head)

    def _check_size(self, image_hw: tuple[int, int]) -> None:
        raise RequestError(
            f"{self.config.name} has offsets for the lines of images of "
            f"{show_size(self.config.image_hw)} alone: for {show_size(image_hw)} load it with "
            f"image_size={image_hw}"
        )

    def _run(self, block: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
        if self.gradient_checkpointing and self.training and not torch.compiler.is_compiling():
            # Recomputation must not update the running statistics twice; compiled code recomputes
            # only what gradients need, which excludes statistics.
            again: Tensor = checkpoint(
                block,
                *inputs,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), _without_statistics(self)),
                **options,
            )
            return again
        return super()._run(block, *inputs, **options)

    def units(self) -> Iterator[AxialUnit]:
        """Yield all units from input to output."""
        for units in self.stages:
            yield from units  # type: ignore[misc]

    def layout(self) -> Layout:
        """Return the layout of the last map."""
        return Layout(self.config.grids[-1], _stride(len(self.config.stages) - 1))

    def attention_layers(self) -> tuple[AttentionLayer, ...]:
        """Return each unit's attention down the columns, then along the rows."""
        units = [(s, u) for s, count in enumerate(self.config.stages) for u in range(count)]
        return tuple(
            AttentionLayer(
                f"{name}/{kind}_attention",
                name,
                kind,
                self.config.num_groups,
                self.config.grids[self.config.map_of(stage, unit)],
                _stride(self.config.map_of(stage, unit)),
            )
            for name, (stage, unit) in zip(self._unit_names(), units, strict=True)
            for kind in _KINDS
        )

    def layer_depth(self, name: str) -> int:
        """Return the depth of a parameter in the network, counted in units."""
        return stage_depth(name, self.config.stages)

    def block_modules(self) -> tuple[nn.Module, ...]:
        """Return the units."""
        return tuple(self.units())

    def first_filters(self) -> Float[Tensor, "D C H W"]:
        """Return the filters of the root."""
        return self.root.weight.detach()

    @property
    def trace_names(self) -> tuple[str, ...]:
        """`root`, then `stageS/unitUU`, counted from 1, each after its two attentions."""
        units = [
            f"{name}{part}"
            for name in self._unit_names()
            for part in ("/column_attention", "/row_attention", "")
        ]
        return ("root", *units, "features", "logits")

    def _unit_names(self) -> list[str]:
        return [
            f"stage{number}/unit{index:02}"
            for number, count in enumerate(self.config.stages, start=1)
            for index in range(1, count + 1)
        ]

    def features(
        self, images: Float[Tensor, "N C H W"], *, any_size: bool = False
    ) -> Float[Tensor, "N F"]:
        """Return what the head reads: the mean over the last map; arguments as for `forward`."""
        self.check_images(images, any_size=any_size)
        maps = self._begin(images)
        for unit in self.units():
            maps = self._run(unit, maps)
        return maps.mean(dim=(2, 3))

    def _walk(
        self, images: Tensor, wanted: Collection[str], heads: Heads
    ) -> Iterator[tuple[str, Tensor]]:
        self.check_images(images)
        maps = self._begin(images)
        yield "root", maps
        for name, unit in zip(self._unit_names(), self.units(), strict=True):
            if {f"{name}/row_attention", f"{name}/column_attention"} & set(wanted):
                with _without_statistics(unit):
                    rows, columns = unit.attention_weights(maps, heads)
                yield f"{name}/column_attention", columns
                yield f"{name}/row_attention", rows
            maps = unit(maps)
            yield name, maps
        features = maps.mean(dim=(2, 3))
        yield "features", features
        yield "logits", self.classify(features)

    def _begin(self, images: Tensor) -> Tensor:
        maps = F.relu(self.root_norm(self.root(images)))
        return F.max_pool2d(maps, 3, stride=2, padding=1)


@contextmanager
def _without_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms use a batch's statistics without updating the running ones."""
    # SyncBatchNorm, which replaces BatchNorm2d on several devices, is not a subclass of it.
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _build_stages(config: AxialResNetConfig, *, in_width: int) -> list[nn.ModuleList]:
    stages = []
    for number, count in enumerate(config.stages):
        width = round(128 * config.width_factor) * 2**number
        units = nn.ModuleList()
        for index in range(count):
            stride = 2 if number and not index else 1
            grid = config.grids[config.map_of(number, index)]
            units.append(
                AxialUnit(config, in_width=in_width, width=width, grid=grid, stride=stride)
            )
            in_width = width * AXIAL_EXPANSION
        stages.append(units)
    return stages


def _stride(stage: int) -> tuple[int, int]:
    """Return the stride of a stage's map in pixels; root and pool have stride 4."""
    return (4 << stage, 4 << stage)


def _rows(maps: Tensor) -> Tensor:
    """Split maps (N, C, H, W) into rows (N H, C, W)."""
    return maps.permute(0, 2, 1, 3).flatten(0, 1)


def _columns(maps: Tensor) -> Tensor:
    """Split maps (N, C, H, W) into columns (N W, C, H)."""
    return maps.permute(0, 3, 1, 2).flatten(0, 1)
