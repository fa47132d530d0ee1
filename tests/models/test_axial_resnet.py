"""AxialResNet beside plain loops in float64, and at other sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_models import build_small, small_batch
from torch import Tensor, nn

from vitral.config.resnet import AxialResNetConfig
from vitral.models.axial_resnet import AxialAttention, AxialResNet, AxialUnit
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model


def scramble(module: nn.Module) -> nn.Module:
    """Move every weight and running statistic off its start; evaluation mode."""
    generator = torch.Generator().manual_seed(4)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + drawn if name.endswith("var") else drawn - 0.4)
    return module.eval()


def batch_norm(values: Tensor, norm: nn.Module, channel: int) -> Tensor:
    """Normalise values of one channel by the running statistics."""
    mean, variance = norm.running_mean[channel].double(), norm.running_var[channel].double()
    scaled = (values - mean) / torch.sqrt(variance + norm.eps)
    return scaled * norm.weight[channel].double() + norm.bias[channel].double()


def plain_attention(layer: AxialAttention, line: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layer's output for a line (C, A), and its attention, one position at a time."""
    length = line.shape[1]
    kernel = layer.qkv.weight[:, :, 0].double()
    projected = torch.zeros(kernel.shape[0], length, dtype=torch.float64)
    for channel in range(kernel.shape[0]):
        for position in range(length):
            value = (kernel[channel] * line[:, position]).sum()
            projected[channel, position] = batch_norm(value, layer.qkv_norm, channel)
    half, full = layer.key_dim, layer.value_dim
    middle = layer.offsets.shape[1] // 2
    offsets = layer.offsets.double()
    output = torch.zeros(layer.groups * full, length, dtype=torch.float64)
    attention = torch.zeros(layer.groups, length, length, dtype=torch.float64)
    for group in range(layer.groups):
        rows = projected[group * 2 * full : (group + 1) * 2 * full]
        query, key, value = rows[:half], rows[half : 2 * half], rows[2 * half :]
        logits = torch.zeros(length, length, dtype=torch.float64)
        for i in range(length):
            for j in range(length):
                # The vectors for queries, keys and values of the offset between two places: that
                # of a key stands at the offset from the key's place to the query's.
                at_query = offsets[:half, j - i + middle]
                at_key = offsets[half : 2 * half, i - j + middle]
                kinds = (
                    (query[:, i] * key[:, j]).sum(),
                    (query[:, i] * at_query).sum(),
                    (key[:, j] * at_key).sum(),
                )
                logits[i, j] = sum(
                    batch_norm(kind, layer.logits_norm, number * layer.groups + group)
                    for number, kind in enumerate(kinds)
                )
        attention[group] = logits.softmax(-1)
        for channel in range(full):
            for i in range(length):
                content = (attention[group, i] * value[channel]).sum()
                by_offset = sum(
                    attention[group, i, j] * offsets[2 * half + channel, j - i + middle]
                    for j in range(length)
                )
                index = group * full + channel
                output[index, i] = batch_norm(content, layer.content_norm, index) + batch_norm(
                    torch.as_tensor(by_offset), layer.offset_norm, index
                )
    return output, attention


@torch.no_grad()
def test_an_axial_layer_is_the_sum_of_content_and_offsets_each_normed() -> None:
    layer = AxialAttention(6, 8, groups=2, length=5, norm_eps=1e-3)
    scramble(layer)
    lines = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))
    outputs, attentions = layer(lines), layer.weights(lines)
    for line, output, attention in zip(lines, outputs, attentions, strict=True):
        expected, expected_attention = plain_attention(layer, line.double())
        torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(attention.double(), expected_attention, atol=1e-6, rtol=1e-5)


def plain_conv(maps: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Convolve a map (C, H, W) 1 x 1, with its stride, and normalise."""
    stride = conv.stride[0]
    mixed = torch.einsum("kc,chw->khw", conv.weight[:, :, 0, 0].double(), maps)
    mixed = mixed[:, ::stride, ::stride]
    return torch.stack([batch_norm(rows, norm, k) for k, rows in enumerate(mixed)])


@pytest.mark.parametrize(("grid", "stride"), [((5, 4), 2), ((2, 3), 1)])
@torch.no_grad()
def test_a_unit_attends_down_columns_then_along_rows_and_halves_by_averages(
    grid: tuple[int, int], stride: int
) -> None:
    config = AxialResNetConfig(name="x", stages=(1,), width_factor=0.125, num_groups=2)
    unit = AxialUnit(config, in_width=6, width=8, grid=grid, stride=stride)
    scramble(unit)
    maps = torch.randn(1, 6, *grid, generator=torch.Generator().manual_seed(1))
    inner = plain_conv(maps[0].double(), unit.conv1, unit.norm1).relu()
    columns, rows = torch.zeros_like(inner), torch.zeros_like(inner)
    for x in range(grid[1]):
        columns[:, :, x], _ = plain_attention(unit.column, inner[:, :, x])
    for y in range(grid[0]):
        rows[:, y], _ = plain_attention(unit.row, columns[:, y])
    height, width = grid[0] // stride, grid[1] // stride
    cropped = rows[:, : height * stride, : width * stride]
    averaged = cropped.unflatten(2, (width, stride)).unflatten(1, (height, stride)).mean((2, 4))
    branch = plain_conv(averaged.relu(), unit.conv2, unit.norm2)
    shortcut = plain_conv(maps[0].double(), *unit.projection)[:, :height, :width]
    torch.testing.assert_close(
        unit(maps)[0].double(), (shortcut + branch).relu(), atol=2e-5, rtol=1e-5
    )


@torch.no_grad()
def test_fresh_units_give_their_shortcut() -> None:
    config = AxialResNetConfig(name="x", stages=(2,), width_factor=0.125, num_groups=2)
    unit = AxialUnit(config, in_width=32, width=16, grid=(4, 4), stride=1)
    unit.init_weights()
    maps = torch.randn(1, 32, 4, 4)
    assert unit.projection is None
    assert torch.equal(unit.eval()(maps), maps.relu())


def test_offsets_start_with_a_deviation_of_the_values_width() -> None:
    torch.manual_seed(0)
    layer = AxialAttention(8, 128, groups=2, length=30, norm_eps=1e-5)
    layer.init_weights()
    assert layer.offsets.shape == (128, 59)
    assert layer.offsets.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert layer.qkv.weight.std().item() == pytest.approx(8**-0.5, rel=0.05)


@torch.no_grad()
def test_evaluation_uses_the_running_statistics_and_training_the_batch_s() -> None:
    model = build_small("AxialResNet")
    images = small_batch(model)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, atol=1e-5, rtol=1e-4)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(images)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.train()(images)
    assert not any(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("size", [(24, 32), (40, 24), (33, 57)])
@torch.no_grad()
def test_a_trained_model_loads_at_another_size_with_its_tables_resized(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    model = build_small("AxialResNet")
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m", image_size=size)
    assert loaded(small_batch(loaded)).shape == (2, 5)
    state, old = loaded.state_dict(), model.state_dict()
    changed = {name for name in old if not torch.equal(state[name], old[name])}
    assert changed == set(loaded.load_report.resized)
    assert {name.rpartition(".")[2] for name in changed} <= {"offsets"}
    for name in changed:
        # The vectors of no offset and of the two longest stay.
        for index in (0, old[name].shape[1] // 2, -1):
            new_index = state[name].shape[1] // 2 if index > 0 else index
            torch.testing.assert_close(state[name][:, new_index], old[name][:, index])
    lengths = [
        (unit.column.offsets.shape[1], unit.row.offsets.shape[1])
        for units in loaded.stages
        for unit in units
    ]
    grids = (loaded.config.grids[0], *loaded.config.grids)
    assert lengths == [(2 * rows - 1, 2 * columns - 1) for rows, columns in grids]


def test_the_fields_of_the_paper_s_sizes() -> None:
    stated: dict[str, Any] = {"name": "x", "stages": (3, 4, 6, 3)}
    widths = [AxialResNetConfig(**stated, width_factor=w).feature_dim for w in (0.5, 0.75, 1)]
    assert widths == [1024, 1536, 2048]


@torch.no_grad()
def test_the_whole_is_root_units_and_mean_over_the_map() -> None:
    model = scramble(build_small("AxialResNet"))
    assert isinstance(model, AxialResNet)
    images = small_batch(model).double()
    maps = nn.functional.conv2d(images, model.root.weight.double(), stride=2, padding=3)
    norm = model.root_norm
    normed = torch.stack(
        [batch_norm(maps[:, channel], norm, channel) for channel in range(maps.shape[1])], dim=1
    )
    padded = nn.functional.pad(normed.clamp(min=0), (1, 1, 1, 1), value=float("-inf"))
    maps = padded.unfold(2, 3, 2).unfold(3, 3, 2).amax(dim=(4, 5))
    traced = model.trace(images.float(), ["root", "features", "logits"])
    torch.testing.assert_close(traced["root"].double(), maps, atol=1e-5, rtol=1e-5)
    maps = maps.float()
    for unit in model.units():
        maps = unit(maps)
    features = maps.sum(dim=(2, 3)) / (maps.shape[2] * maps.shape[3])
    torch.testing.assert_close(traced["features"], features, atol=1e-4, rtol=1e-4)
    logits = features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(traced["logits"], logits, atol=1e-4, rtol=1e-4)
