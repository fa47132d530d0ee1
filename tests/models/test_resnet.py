"""Units of both versions beside their formulas; the originals' numbers are with the weights."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import build_small, small_batch
from torch import Tensor, nn

from vitral.models.resnet import ResNet, Unit
from vitral.spec.resnet import V1_FIELDS, ResNetConfig

VERSIONS: dict[str, dict[str, Any]] = {"v2": {}, "v1": V1_FIELDS}
each_version = pytest.mark.parametrize("version", VERSIONS)


def unit_of(version: str, **fields: int) -> Unit:
    config = ResNetConfig(name="x", stages=(1,), width_factor=0.5, **VERSIONS[version])
    torch.manual_seed(0)
    unit = Unit(config, **{"in_width": 64, "width": 32, "stride": 1} | fields)
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.5)
    return unit.eval()


def normed(maps: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise 32 groups of channels, each over its channels and places."""
    groups = maps.double().unflatten(1, (32, -1))
    mean = groups.mean((2, 3, 4), keepdim=True)
    variance = groups.var((2, 3, 4), correction=0, keepdim=True)
    own = ((groups - mean) / (variance + norm.eps).sqrt()).flatten(1, 2).float()
    return own * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_unit_of_version_2_projects_the_normed_input(stride: int) -> None:
    unit = unit_of("v2", stride=stride)
    maps = torch.randn(2, 64, 6, 5)
    first = normed(maps, unit.norm1).relu()
    branch = normed(unit.conv1(first), unit.norm2).relu()
    branch = F.conv2d(branch, unit.conv2.kernel(), stride=stride, padding=1)
    branch = unit.conv3(normed(branch, unit.norm3).relu())
    shortcut = F.conv2d(first, unit.projection.kernel(), stride=stride)
    torch.testing.assert_close(unit(maps), shortcut + branch, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_unit_of_version_1_norms_after_each_convolution_and_after_the_projection(
    stride: int,
) -> None:
    unit = unit_of("v1", stride=stride)
    maps = torch.randn(2, 64, 6, 5)
    branch = normed(unit.conv1(maps), unit.norm1).relu()
    branch = normed(unit.conv2(branch), unit.norm2).relu()
    branch = normed(unit.conv3(branch), unit.norm3)
    shortcut = normed(F.conv2d(maps, unit.projection.kernel(), stride=stride), unit.projection_norm)
    torch.testing.assert_close(unit(maps), (shortcut + branch).relu(), atol=1e-3, rtol=1e-4)


@each_version
@torch.no_grad()
def test_a_unit_that_keeps_width_and_grid_has_no_projection(version: str) -> None:
    unit = unit_of(version, in_width=128)
    assert unit.projection is None
    assert [name for name, _ in unit.named_parameters() if "projection" in name] == []


@each_version
def test_the_stride_is_on_the_second_convolution(version: str) -> None:
    unit = unit_of(version, stride=2)
    convolutions = (unit.conv1, unit.conv2, unit.conv3, unit.projection)
    assert [conv.stride for conv in convolutions] == [1, 2, 1, 2]


def test_only_version_1_starts_as_its_shortcut_alone() -> None:
    starts = {}
    for version in VERSIONS:
        unit = unit_of(version)
        unit.init_weights()
        starts[version] = [norm.weight.unique().tolist() for norm in (unit.norm1, unit.norm3)]
    assert starts == {"v1": [[1.0], [0.0]], "v2": [[1.0], [1.0]]}


@pytest.mark.parametrize(
    ("padding", "filling", "sides"),
    [("zero", 0.0, (1, 1, 1, 1)), ("infinite", float("-inf"), (1, 1, 1, 1))],
)
@torch.no_grad()
def test_the_root_s_pool_is_surrounded_by_zeros_or_nothing(
    padding: str, filling: float, sides: tuple[int, ...]
) -> None:
    model = build_small("BiT", pool_padding=padding)
    assert isinstance(model, ResNet)
    images = small_batch(model)
    raw = F.conv2d(images, model.trunk.root.kernel(), stride=2, padding=3)
    expected = F.max_pool2d(F.pad(raw, sides, value=filling), 3, stride=2)
    torch.testing.assert_close(model.trace(images, ["root"])["root"], expected)


@torch.no_grad()
def test_the_root_of_version_1_is_normed_before_its_pool() -> None:
    model = build_small("ResNet v1")
    assert isinstance(model, ResNet)
    images = small_batch(model)
    raw = F.conv2d(F.pad(images, (2, 3, 2, 3)), model.trunk.root.kernel(), stride=2)
    maps = normed(raw, model.trunk.root_norm).relu()
    expected = F.max_pool2d(F.pad(maps, (0, 1, 0, 1), value=-1.0), 3, stride=2)
    traced = model.trace(images, ["root"])["root"]
    torch.testing.assert_close(traced, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("family", "has_norm"), [("BiT", True), ("ResNet v1", False)])
@torch.no_grad()
def test_the_head_reads_the_mean_of_the_last_map(family: str, has_norm: bool) -> None:
    model = build_small(family)
    assert isinstance(model, ResNet)
    traced = model.trace(small_batch(model), ["stage2/unit02", "features"])
    maps = traced["stage2/unit02"]
    assert (model.trunk.norm is not None) == has_norm
    ends = [normed(maps, norm).relu() for norm in [model.trunk.norm] * has_norm] or [maps]
    torch.testing.assert_close(traced["features"], ends[0].mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_convolutions_start_lecun_normal_and_the_head_at_zero() -> None:
    torch.manual_seed(0)
    config = ResNetConfig(name="x", stages=(1,), width_factor=2, num_classes=3, image_size=32)
    model = ResNet(config)
    kernel = model.trunk.root.weight
    assert kernel.std().item() == pytest.approx((3 * 49) ** -0.5, rel=0.05)
    assert not model.head.weight.any()
    assert not model.head.bias.any()
