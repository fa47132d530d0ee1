"""Fitting weights to other channels, resolutions and heads, where the outputs tell it right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_models import FAMILIES, build_small, small_batch
from torch import Tensor

from vitral.config.preprocessing import Preprocessing, channels_preprocessing, default_preprocessing
from vitral.models.model import Model
from vitral.models.weights.adapt import fit_tensors, spread_channels
from vitral.models.weights.load import load_model
from vitral.models.weights.save import save_model

# One of each stem.
STEMS = ["ViT", "hybrid", "BiT", "ResNet v1", "AxialViT gap", "AxialResNet"]
each_family = pytest.mark.parametrize("family", STEMS)
# Two channels to a group of the norms, which would undo the scale of a filter that is alone.
WIDE: dict[str, dict[str, Any]] = {
    "BiT": {"width_factor": 1},
    "ResNet v1": {"width_factor": 1},
    "hybrid": {"resnet": FAMILIES["hybrid"]["resnet"] | {"width_factor": 1}},
}


def build_wide(family: str) -> Model:
    return build_small(family, **WIDE.get(family, {}))


def save_and_load(model: Model, folder: Path, **fields: Any) -> Model:
    save_model(model, folder / "m")
    return load_model(folder / "m", **fields)


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bring pixels (N, C, H, W) from [0, 1] to the model's input."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (pixels - mean) / std


GREYS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
EXACT = 2e-5
# A projection's bias takes in that the channels have means of their own; convolutions have none.


PLAIN = ["ViT", "ViT map", "AxialViT gap"]


@pytest.mark.parametrize(
    ("family", "statistics"),
    [*((family, "half") for family in STEMS), *((family, "per channel") for family in PLAIN)],
)
@torch.no_grad()
def test_a_grey_image_gives_what_it_gave_as_rgb(
    tmp_path: Path, family: str, statistics: str
) -> None:
    model = build_wide(family)
    fields = GREYS if statistics == "per channel" else {}
    model.preprocessing = Preprocessing(size=model.config.image_hw, **fields)
    grey = save_and_load(model, tmp_path, in_channels=1)
    assert grey.preprocessing.channels == grey.config.in_channels == 1
    pixels = torch.rand(2, 1, 24, 32, generator=torch.Generator().manual_seed(0))
    expected = model(normalise(pixels.expand(-1, 3, -1, -1), model.preprocessing))
    found = grey(normalise(pixels, grey.preprocessing))
    torch.testing.assert_close(
        found, expected, atol=EXACT * max(1.0, expected.abs().max().item()), rtol=1e-5
    )


@each_family
@pytest.mark.parametrize("channels", [1, 4])
@torch.no_grad()
def test_only_the_stem_changes_for_other_channels(
    tmp_path: Path, family: str, channels: int
) -> None:
    model = build_wide(family)
    loaded = save_and_load(model, tmp_path, in_channels=channels)
    state, old = loaded.state_dict(), model.state_dict()
    stems = ("embedding.weight", "embedding.bias", "root.weight", "root.gain")
    changed = {name for name in state if name not in old or not torch.equal(state[name], old[name])}
    assert changed
    assert all(name.endswith(stems) for name in changed)
    assert set(loaded.load_report.resized) >= changed
    assert loaded.load_report.new == loaded.load_report.left_over == ()
    assert loaded(small_batch(loaded)).isfinite().all()


@each_family
@torch.no_grad()
def test_six_channels_of_twice_the_same_give_what_three_gave(tmp_path: Path, family: str) -> None:
    model = build_wide(family)
    twice = save_and_load(model, tmp_path, in_channels=6)
    images = small_batch(model)
    expected = model(images)
    found = twice(torch.cat([images, images], dim=1))
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found, expected, atol=2e-5 * scale, rtol=1e-5)


@each_family
@torch.no_grad()
def test_a_fourth_channel_keeps_the_scale_of_what_the_stem_gives(
    tmp_path: Path, family: str
) -> None:
    model = build_wide(family)
    loaded = save_and_load(model, tmp_path, in_channels=4)
    first = model.trace_names[0]
    grey = torch.rand(4, 1, 24, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    before = model.trace(grey.expand(-1, 3, -1, -1), [first])[first]
    after = loaded.trace(grey.expand(-1, 4, -1, -1), [first])[first]
    assert after.std().item() == pytest.approx(before.std().item(), rel=0.5)
    assert loaded.preprocessing.mean == (0.5,) * 4


@pytest.mark.parametrize("family", ["BiT", "hybrid", "ResNet v1"])
@torch.no_grad()
def test_a_gain_survives_saving_and_another_change_of_channels(tmp_path: Path, family: str) -> None:
    model = build_wide(family)
    grey = save_and_load(model, tmp_path, in_channels=1)
    again = save_and_load(grey, tmp_path / "again")
    images = small_batch(grey)
    assert torch.equal(again(images), grey(images))
    back = save_and_load(grey, tmp_path / "back", in_channels=3)
    expected = grey(images)
    torch.testing.assert_close(
        back(images.expand(-1, 3, -1, -1)), expected,
        atol=2e-5 * max(1.0, expected.abs().max().item()), rtol=1e-5,
    )  # fmt: skip


def test_channels_are_repeated_in_turn_and_scaled() -> None:
    kernel = torch.randn(2, 3, 1, 1)
    spread = spread_channels(kernel, 5)
    torch.testing.assert_close(spread, kernel[:, [0, 1, 2, 0, 1]] * 3 / 5)
    torch.testing.assert_close(spread_channels(kernel, 1), kernel.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("channels", "mean"),
    [(1, (0.2,)), (2, (0.1, 0.2)), (3, (0.1, 0.2, 0.3)), (4, (0.1, 0.2, 0.3, 0.1))],
)
def test_means_are_repeated_in_turn_and_grey_has_their_average(
    channels: int, mean: tuple[float, ...]
) -> None:
    old = Preprocessing(size=(8, 8), mean=(0.1, 0.2, 0.3))
    new = channels_preprocessing(old, channels)
    assert new.mean == pytest.approx(mean)
    assert (new.channels, len(new.std)) == (channels, channels)


# Resolutions.
POSITIONS: dict[str, dict[str, Any]] = {
    "1d": {}, "1d bicubic": {"position_resize": "bicubic"}, "2d": {"position": "2d"},
    "1d every": {"position_at": "every"}, "2d shared": {"position": "2d", "position_at": "shared"},
    "relative": {"position": "relative"}, "sincos2d": {"position": "sincos2d"},
    "relative heads": {"position": "relative", "relative_per_head": True},
    "none": {"position": "none"}, "registers": {"num_registers": 2},
    "gap with a class token": {"pool": "gap", "class_token": True},
}  # fmt: skip


@pytest.mark.parametrize("case", POSITIONS)
@torch.no_grad()
def test_every_table_follows_another_resolution(tmp_path: Path, case: str) -> None:
    model = build_small("ViT", **POSITIONS[case])
    wide = save_and_load(model, tmp_path, image_size=(40, 48))
    assert wide(small_batch(wide)).shape == (2, 5)
    state, old = wide.state_dict(), model.state_dict()
    changed = {name for name in old if not torch.equal(state[name], old[name])}
    learned = {name for name in old if name.startswith("positions.") and "class_place" not in name}
    assert changed == learned == set(wide.load_report.resized)
    # From the same size nothing changes, to the bit.
    same = load_model(tmp_path / "m", image_size=(24, 32))
    assert torch.equal(same(small_batch(model)), model(small_batch(model)))
    assert same.load_report.resized == ()


@torch.no_grad()
def test_rows_follow_the_height_and_columns_the_width(tmp_path: Path) -> None:
    model = build_small("ViT", position="2d")
    wide = save_and_load(model, tmp_path, image_size=(40, 56))
    assert (wide.positions[0].rows.shape[1], wide.positions[0].columns.shape[1]) == (5, 7)
    torch.testing.assert_close(wide.positions[0].rows[:, 2], model.positions[0].rows[:, 1])
    torch.testing.assert_close(wide.positions[0].columns[:, 2], model.positions[0].columns[:, 1])


@torch.no_grad()
def test_the_class_token_keeps_its_row(tmp_path: Path) -> None:
    model = build_small("ViT")
    wide = save_and_load(model, tmp_path, image_size=(48, 64))
    assert torch.equal(wide.positions[0].table[:, :1], model.positions[0].table[:, :1])
    old = model.positions[0].table[:, 1:].view(3, 4, 16)
    new = wide.positions[0].table[:, 1:].view(6, 8, 16)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(new[row, column], old[row, column])


@pytest.mark.parametrize("family", ["BiT", "ResNet v1", "hybrid"])
@torch.no_grad()
def test_convolutions_take_any_resolution_unchanged(tmp_path: Path, family: str) -> None:
    model = build_wide(family)
    wide = save_and_load(model, tmp_path, image_size=(48, 40))
    assert wide(small_batch(wide)).shape == (2, 5)
    assert {name.partition(".")[0] for name in wide.load_report.resized} <= {"positions"}


# Heads.
@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({}, []),
        ({"num_classes": 8}, ["head.weight", "head.bias"]),
        ({"num_classes": 0}, ["head.weight", "head.bias"]),
        (
            {"representation_size": 0},
            ["pre_logits.weight", "pre_logits.bias", "head.weight", "head.bias"],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_means_something_else_is_dropped(fields: dict[str, Any], dropped: list[str]) -> None:
    # As wide as a token, so that the head's shape stays.
    old = build_small("ViT", representation_size=16)
    new = build_small("ViT", **{"representation_size": 16} | fields)
    given = dict(old.state_dict())
    fitting = fit_tensors(
        given, old=old.config, new=new.config,
        preprocessing=default_preprocessing((24, 32), channels=3),
    )  # fmt: skip
    assert sorted(fitting.dropped) == sorted(dropped)
    assert set(fitting.tensors) == set(given) - set(dropped)
    assert given.keys() == old.state_dict().keys()
