"""Units of both versions beside their formulas; the originals' numbers are with the weights."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_models import build_small, small_batch
from torch import Tensor, nn

from vitral.config.resnet import V1_FIELDS, ResNetConfig
from vitral.models.resnet import Bottleneck, ResNet, StandardizedConv, pad_to_same

VERSIONS: dict[str, dict[str, Any]] = {"v2": {}, "v1": V1_FIELDS}
each_version = pytest.mark.parametrize("version", VERSIONS)


def unit_of(version: str, **fields: int) -> Bottleneck:
    config = ResNetConfig(name="x", stages=(1,), width_factor=0.5, **VERSIONS[version])
    torch.manual_seed(0)
    unit = Bottleneck(config, **{"in_width": 64, "width": 32, "stride": 1} | fields)
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.5)
    return unit.eval()


def normed(maps: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise 32 groups of channels, each over its channels and positions."""
    groups = maps.double().unflatten(1, (32, -1))
    mean = groups.mean((2, 3, 4), keepdim=True)
    variance = groups.var((2, 3, 4), correction=0, keepdim=True)
    scaled = ((groups - mean) / (variance + norm.eps).sqrt()).flatten(1, 2).float()
    return scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


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


FORMS: dict[str, dict[str, Any]] = {"variance": {}, "deviation": V1_FIELDS}
each_form = pytest.mark.parametrize("form", FORMS)


def convolution(form: str = "variance", **fields: Any) -> StandardizedConv:
    config = ResNetConfig(name="x", stages=(1,), width_factor=0.5, **FORMS[form])
    torch.manual_seed(0)
    made = StandardizedConv(config, 3, 8, **{"kernel_size": 3} | fields)
    torch.nn.init.normal_(made.weight, mean=0.3, std=0.05)
    return made


@each_form
@pytest.mark.parametrize("scale", [1.0, 1e-4])
@torch.no_grad()
def test_a_kernel_is_standardised_as_in_its_original_code(form: str, scale: float) -> None:
    conv = convolution(form)
    conv.weight.mul_(scale)
    kernel = conv.weight.double().numpy()
    mean = kernel.mean(axis=(1, 2, 3), keepdims=True)
    forms = {
        "variance": np.sqrt(kernel.var(axis=(1, 2, 3), keepdims=True) + 1e-10),
        "deviation": kernel.std(axis=(1, 2, 3), keepdims=True) + 1e-5,
    }
    expected = (kernel - mean) / forms[form]
    np.testing.assert_allclose(conv.kernel().numpy(), expected, atol=1e-4, rtol=1e-4)


@each_form
@torch.no_grad()
def test_neither_scale_nor_shift_of_a_kernel_counts(form: str) -> None:
    conv, maps = convolution(form), torch.randn(1, 3, 6, 7)
    before = conv(maps)
    conv.weight.mul_(20).add_(0.5)
    torch.testing.assert_close(conv(maps), before, atol=2e-3, rtol=2e-3)


@torch.no_grad()
def test_half_precision_is_standardised_in_float32() -> None:
    conv = convolution()
    expected = conv.standardize(conv.weight.bfloat16().float())
    found = conv.to(torch.bfloat16).kernel()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())


@torch.no_grad()
def test_a_gain_multiplies_each_filter() -> None:
    conv, plain = convolution(gain=True), convolution()
    conv.gain.normal_()
    expected = plain.kernel() * conv.gain.view(-1, 1, 1, 1)
    torch.testing.assert_close(conv.kernel(), expected)


@each_form
def test_a_filter_of_one_value_is_nothing_and_has_finite_gradients(form: str) -> None:
    conv = convolution(form)
    torch.nn.init.constant_(conv.weight, 0.25)
    kernel = conv.kernel()
    torch.testing.assert_close(kernel, torch.zeros_like(kernel), atol=1e-3, rtol=0)
    (kernel * torch.randn(kernel.shape)).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.isfinite().all()


# The kept kernel.
@torch.no_grad()
def test_without_gradients_the_kernel_is_standardised_once() -> None:
    conv = convolution().eval()
    first = conv.kernel()
    conv(torch.randn(1, 3, 6, 6))
    assert conv.kernel() is first


def change_in_place(conv: StandardizedConv) -> None:
    conv.weight[0, 0] += 1


def load_other(conv: StandardizedConv) -> None:
    conv.load_state_dict({"weight": conv.weight * torch.rand_like(conv.weight)})


def assign_other(conv: StandardizedConv) -> None:
    conv.load_state_dict({"weight": conv.weight * torch.rand_like(conv.weight)}, assign=True)


def change_data(conv: StandardizedConv) -> None:
    conv.weight.data = conv.weight * torch.rand_like(conv.weight)


def take_a_step(conv: StandardizedConv) -> None:
    conv.weight.grad = torch.rand_like(conv.weight)
    torch.optim.SGD(conv.parameters(), lr=0.1).step()


CHANGES = [
    change_in_place, load_other, assign_other, change_data, take_a_step,
    lambda conv: conv.double(), lambda conv: conv.to(torch.bfloat16),
    lambda conv: conv.train().eval(), lambda conv: conv.eval(),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_a_changed_weight_or_mode_is_standardised_anew(
    change: Callable[[StandardizedConv], object],
) -> None:
    conv = convolution().eval()
    first = conv.kernel()
    change(conv)
    assert conv.kernel() is not first
    assert torch.equal(conv.kernel(), conv.standardize(conv.weight))
    assert conv.kernel() is conv.kernel()


@torch.no_grad()
def test_a_changed_gain_is_not_overlooked() -> None:
    conv = convolution(gain=True).eval()
    conv.gain.fill_(1.0)
    first = conv.kernel()
    conv.gain.fill_(2.0)
    torch.testing.assert_close(conv.kernel(), 2 * first)


@torch.no_grad()
def test_a_copy_keeps_no_kernel_of_the_original() -> None:
    conv = convolution().eval()
    conv.kernel()
    twin = copy.deepcopy(conv)
    twin.weight.normal_()
    assert torch.equal(twin.kernel(), twin.standardize(twin.weight))


@each_form
@pytest.mark.parametrize("training", [True, False])
def test_with_gradients_they_flow_to_the_weight_in_either_mode(form: str, training: bool) -> None:
    conv = convolution(form).train(training)
    with torch.no_grad():
        conv.kernel()
    maps = torch.randn(1, 3, 5, 5)
    conv(maps).square().sum().backward()
    expected = conv.weight.detach().clone().requires_grad_()
    F.conv2d(maps, conv.standardize(expected), padding=1).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, expected.grad)
    # Adding to a filter changes nothing, so the gradient along that is none.
    summed, absolute = conv.weight.grad.sum((1, 2, 3)), conv.weight.grad.abs().sum((1, 2, 3))
    assert (summed.abs() < 1e-4 * absolute).all()


def test_a_kernel_kept_in_inference_mode_serves_where_gradients_of_images_are_wanted() -> None:
    model = build_small("BiT").requires_grad_(False)
    images = small_batch(model)
    with torch.inference_mode():
        expected = model(images)
    images.requires_grad_()
    logits = model(images)
    logits.sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(logits.detach(), expected.clone())


# Padding.
@given(
    height=st.integers(1, 12), width=st.integers(1, 12), kernel=st.sampled_from([1, 3, 7]),
    stride=st.sampled_from([1, 2]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_same_padding_gives_a_stride_th_of_the_places_with_more_at_the_end(
    height: int, width: int, kernel: int, stride: int
) -> None:
    maps = torch.ones(1, 1, height, width)
    padded = pad_to_same(maps, kernel_size=kernel, stride=stride, filling=-2.0)
    result = F.conv2d(padded, torch.ones(1, 1, kernel, kernel), stride=stride)
    assert result.shape[2:] == (-(-height // stride), -(-width // stride))
    for axis, side in ((2, height), (3, width)):
        line = (padded == 1).any(5 - axis).flatten().tolist()
        before = line.index(True)
        after = padded.shape[axis] - side - before
        assert after - before in (0, 1)
    assert set(padded.unique().tolist()) <= {1.0, -2.0}


def test_same_padding_of_224_pixels_is_two_before_and_three_after() -> None:
    padded = pad_to_same(torch.ones(1, 1, 224, 224), kernel_size=7, stride=2)
    assert padded.shape[2:] == (229, 229)
    assert padded[0, 0, :, 10].tolist() == [0] * 2 + [1] * 224 + [0] * 3


@pytest.mark.parametrize(("form", "places"), [("variance", (4, 4)), ("deviation", (4, 4))])
@torch.no_grad()
def test_fixed_padding_is_half_a_kernel_on_each_side(form: str, places: tuple[int, int]) -> None:
    conv = convolution(form, stride=2)
    maps = torch.randn(1, 3, 8, 8)
    padding = {"variance": (1, 1, 1, 1), "deviation": (0, 1, 0, 1)}[form]
    expected = F.conv2d(F.pad(maps, padding), conv.kernel(), stride=2)
    assert conv(maps).shape[2:] == places
    torch.testing.assert_close(conv(maps), expected)


def write_past_the_count(conv: StandardizedConv) -> None:
    """As an average of weights does."""
    conv.weight.data.mul_(0.9).add_(0.1 * torch.randn_like(conv.weight))


@torch.no_grad()
def test_a_weight_that_was_written_past_torch_s_count_is_standardised_anew() -> None:
    conv = convolution().eval()
    first = conv.kernel().clone()
    write_past_the_count(conv)
    assert not torch.equal(conv.kernel(), first)
    assert torch.equal(conv.kernel(), conv.standardize(conv.weight))
