"""What a model says of itself: grid and stride, attentions, depths, tables, blocks, filters."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.small_models import FAMILIES, build_small, small_batch
from torch import nn

import vitral
from vitral.models.axial import AxialBlock
from vitral.models.layers import EncoderBlock
from vitral.models.layout import AttentionLayer, Layout, tables_of
from vitral.models.model import Model
from vitral.models.vit import ViT

LAYOUTS = {
    "ViT": Layout((3, 4), (8, 8), 1, has_class_token=True, has_tokens=True, pool="token"),
    "ViT map": Layout((3, 4), (8, 8), 0, has_tokens=True, pool="map"),
    "hybrid": Layout((3, 2), (8, 16), 1, has_class_token=True, has_tokens=True, pool="token"),
    "BiT": Layout((3, 4), (8, 8)),
    "ResNet v1": Layout((3, 4), (8, 8)),
    "AxialViT gap": Layout((3, 4), (8, 8), 0, has_tokens=True, pool="gap"),
    "AxialViT token": Layout(
        (3, 4), (8, 8), 1, has_class_token=True, has_tokens=True, pool="token"
    ),
    "AxialViT map": Layout((3, 4), (8, 8), 0, has_tokens=True, pool="map"),
    "AxialResNet": Layout((3, 4), (8, 8)),
}


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_layout_is_that_of_what_the_model_computes(family: str) -> None:
    model = build_small(family)
    layout = model.layout()
    assert layout == LAYOUTS[family]
    images = small_batch(model)
    if layout.has_tokens:
        assert isinstance(model, ViT)
        length = layout.num_prefix_tokens + layout.grid[0] * layout.grid[1]
        assert model.tokens(images).shape[1] == length
    else:
        last = [name for name in model.trace_names if "/unit" in name and "attention" not in name]
        assert model.trace(images, [last[-1]])[last[-1]].shape[2:] == layout.grid


def test_registers_are_prefix_tokens_and_no_class_token() -> None:
    layout = build_small("ViT", pool="gap", num_registers=2).layout()
    assert (layout.num_prefix_tokens, layout.has_class_token) == (2, False)


def expected_shape(layer: AttentionLayer, count: int) -> tuple[int, ...]:
    """Return the shape that a traced attention of this kind has."""
    rows, columns = layer.grid
    length = layer.num_prefix_tokens + rows * columns
    row, column = layer.num_prefix_tokens + columns, layer.num_prefix_tokens + rows
    return {
        "full": (count, layer.num_heads, length, length),
        "row": (count, rows, layer.num_heads, row, row),
        "column": (count, columns, layer.num_heads, column, column),
        "pool": (count, layer.num_heads, 1, length),
    }[layer.kind]


CASES: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("ViT", {"num_registers": 2, "pool": "map"}),
    ("AxialResNet", {"stages": (2, 2, 1), "image_size": (40, 56)}),
]


@pytest.mark.parametrize(("family", "fields"), CASES, ids=str)
@torch.no_grad()
def test_each_attention_has_the_shape_that_its_layer_says(
    family: str, fields: dict[str, Any]
) -> None:
    model = build_small(family, **fields)
    layers = model.attention_layers()
    assert [layer.name for layer in layers] == [
        name for name in model.trace_names if name.endswith("attention")
    ]
    for name, value in model.trace_each(small_batch(model), [layer.name for layer in layers]):
        layer = next(layer for layer in layers if layer.name == name)
        assert value.shape == expected_shape(layer, 2)
        assert layer.name.startswith(f"{layer.layer}/")
        sums = value.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


@torch.no_grad()
def test_a_unit_s_stride_is_that_of_the_map_that_enters_it() -> None:
    model = build_small("AxialResNet", stages=(2, 2, 1), image_size=(64, 96))
    for layer in model.attention_layers():
        assert (layer.grid[0] * layer.stride[0], layer.grid[1] * layer.stride[1]) == (64, 96)
    strides = [layer.stride[0] for layer in model.attention_layers() if layer.kind == "row"]
    assert strides == [4, 4, 4, 8, 8]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_called_one_by_one_in_their_order(family: str) -> None:
    model = build_small(family).train()
    blocks = model.block_modules()
    called: list[int] = []
    for index, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, index=index: called.append(index))
    model(small_batch(model))
    assert called == list(range(len(blocks)))
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    assert len(inside) == sum(len(list(block.parameters())) for block in blocks)
    if isinstance(model, ViT):
        kinds = [type(block) for block in blocks[-2:]]
        assert kinds == [AxialBlock if "Axial" in family else EncoderBlock] * 2


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_first_filters_make_the_first_result(family: str) -> None:
    model = build_small(family)
    filters, name = model.first_filters(), model.trace_names[0]
    images, side = small_batch(model), filters.shape[2]
    first = model.trace(images, [name])[name]
    if name == "embedding":
        wanted = F.conv2d(images, filters, model.embedding.bias, stride=side)
        torch.testing.assert_close(first, wanted.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    else:
        assert (filters.shape[0], side) == (first.shape[1], 7)
        if family == "BiT":
            maps = F.pad(F.conv2d(images, filters, stride=2, padding=3), (1, 1, 1, 1))
            torch.testing.assert_close(first, F.max_pool2d(maps, 3, stride=2))


class Wrapped(nn.Module):
    """A model beside a token of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.mask_token = model, nn.Parameter(torch.zeros(1, 1, 16))

    def no_weight_decay(self) -> set[str]:
        """Return the name of the token."""
        return {"mask_token"}


def test_tables_are_collected_from_all_modules_with_their_path() -> None:
    model = build_small("ViT", pool="map", class_token=True, num_registers=1, position_at="every")
    names = {
        "cls_token",
        "registers",
        "attention_pool.probe",
        "positions.0.table",
        "positions.1.table",
    }
    assert model.no_weight_decay() == tables_of(model) == names
    assert tables_of(Wrapped(model)) == {"mask_token", *(f"model.{name}" for name in names)}
    assert build_small("BiT").no_weight_decay() == set()
    axial = build_small("AxialResNet")
    offsets = {name for name, _ in axial.named_parameters() if name.endswith("offsets")}
    assert axial.no_weight_decay() == offsets


# Depths.
SMALL = {
    "ViT-S/16": {"image_size": 32, "depth": 3, "num_registers": 1, "position": "2d"},
    "AxialViT-B/32": {"image_size": 64, "depth": 3},
    "R50x1": {"image_size": 32, "stages": (2, 1, 1, 1)},
    "R26+ViT-S/32": {"image_size": 64, "depth": 3},
    "AxialResNet50s": {"image_size": 32, "stages": (2, 1)},
}
# The first of each depth, from the image to the head.
FIRST = {
    "ViT-S/16": ["embedding.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."],
    "AxialViT-B/32": ["embedding.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."],
    "R50x1": ["trunk.root.", *(f"trunk.stages.{n}." for n in ("0.0", "0.1", "1.0", "2.0", "3.0")),
              "trunk.norm."],
    "R26+ViT-S/32": ["embedding.resnet.root.",
                     *(f"embedding.resnet.stages.{s}.{u}." for s in range(4) for u in range(2)),
                     "embedding.projection.", "blocks.0.", "blocks.1.", "blocks.2.", "norm."],
    "AxialResNet50s": ["root.", "stages.0.0.", "stages.0.1.", "stages.1.0.", "head."],
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_depth_grows_from_the_image_to_the_head_without_a_gap(name: str) -> None:
    model = vitral.create_model(name, num_classes=3, **SMALL[name])
    names = [n for n, _ in model.named_parameters()]
    depths = {n: model.layer_depth(n) for n in names}
    found = sorted(set(depths.values()))
    assert found == list(range(len(FIRST[name])))
    for depth, prefix in enumerate(FIRST[name]):
        matching = [n for n in names if n.startswith(prefix)]
        assert matching, prefix
        assert {depths[n] for n in matching} == {depth}
    assert depths["head.weight"] == found[-1]


def test_tokens_and_positions_are_as_deep_as_the_patches_they_join() -> None:
    model = vitral.create_model("ViT-S/16", **SMALL["ViT-S/16"])
    depths = {n: model.layer_depth(n) for n, _ in model.named_parameters()}
    matching = [n for n in depths if n.split(".")[0] in ("cls_token", "registers", "positions")]
    assert len(matching) >= 4
    assert {depths[n] for n in matching} == {0}


_UNIT = re.compile(r"(?:^|\.)stages\.(\d+)\.(\d+)\.")
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


def depth_by_patterns(model: Model) -> dict[str, int]:
    """Return the depths by patterns of names alone, the rule that the methods stand for."""
    names = [name for name, _ in model.named_parameters()]
    units = sorted({(int(m[1]), int(m[2])) for m in map(_UNIT.search, names) if m})
    blocks = [int(m[1]) for m in map(_BLOCK.match, names) if m]
    embedding = len(units) + 1 if units else 0
    above = embedding + 2 + max(blocks) if blocks else embedding

    def depth(name: str) -> int:
        unit, block = _UNIT.search(name), _BLOCK.match(name)
        if unit:
            return 1 + units.index((int(unit[1]), int(unit[2])))
        if block:
            return embedding + 1 + int(block[1])
        if re.search(r"(?:^|\.)root(?:_norm)?\.", name):
            return 0
        is_input = re.match(r"^(?:cls_token|registers|positions|embedding)(?:\.|$)", name)
        return embedding if is_input else above

    return {name: depth(name) for name in names}


@pytest.mark.parametrize(
    ("name", "fields"),
    [*SMALL.items(), ("R+Ti/16", {"image_size": 64}), ("ViT-S/16", {"pool": "map", "depth": 2}),
     ("ViT-S/16", {"position": "relative", "depth": 2, "representation_size": 5})],
    ids=str,
)  # fmt: skip
def test_depths_are_those_of_the_patterns_that_they_replaced(
    name: str, fields: dict[str, Any]
) -> None:
    model = vitral.create_model(name, num_classes=3, **fields)
    assert {n: model.layer_depth(n) for n, _ in model.named_parameters()} == depth_by_patterns(
        model
    )
