"""The figures of an inspection, from its arrays alone."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image, ImageFilter
from support.inspected_models import inspect_small
from support.small_models import FAMILIES

from vitral.errors import RequestError
from vitral.figures.inspection.draw import (
    draw_by_depth,
    draw_figures,
    draw_filters,
    draw_positions,
    remove_figures,
)
from vitral.figures.inspection.inspected import Inspected, read_inspected, write_inspected
from vitral.figures.inspection.overlays import (
    answers,
    brighten_by_attention,
    coloured,
    coloured_fall,
    draw_features,
    draw_heads,
    draw_occlusion,
    draw_rollouts,
    over,
    rescale,
    tile_centres,
    tiled,
)

OF_ALL = {"occlusion", "features", "filters"}
OF_TOKENS = {"rollout", "heads", "positions"}
OF_ATTENTION = {"distance", "entropy"}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels, which are there sooner."""
    monkeypatch.setattr("vitral.figures.plots.DOTS_PER_INCH", 30)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_the_figures_that_it_has(family: str, tmp_path: Path) -> None:
    drawn = draw_figures(inspect_small(family), tmp_path)
    wanted = set(OF_ALL)
    wanted |= OF_ATTENTION if family not in ("BiT", "ResNet v1") else set()
    wanted |= OF_TOKENS if "ViT" in family or family == "hybrid" else set()
    assert set(drawn) == wanted
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{name}.{ending}" for name in wanted for ending in ("png", "svg")}
    assert not pyplot.get_fignums()


def test_a_figure_is_drawn_from_the_file_alone_and_always_the_same(tmp_path: Path) -> None:
    model = inspect_small()
    write_inspected(tmp_path, model)
    for name, source in (("first", model), ("again", read_inspected(tmp_path))):
        (tmp_path / name).mkdir()
        draw_figures(source, tmp_path / name)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_the_caller_s_own_settings_change_nothing(tmp_path: Path) -> None:
    for name, settings in (("plain", {}), ("other", {"font.size": 30, "lines.linewidth": 9})):
        (tmp_path / name).mkdir()
        with mpl.rc_context(settings):
            draw_figures(inspect_small(), tmp_path / name)
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_filters_of_any_number_of_channels_are_drawn(channels: int) -> None:
    about = inspect_small().about
    components = np.random.default_rng(0).normal(size=(16, 8, 8, channels))
    shares = np.full(16, 1 / 16)
    model = Inspected(
        {
            "about": np.array(json.dumps(about)),
            "filters/components": components,
            "filters/shares": shares,
        }
    )
    figure = draw_filters(model)
    sheet = figure.axes[0].images[0].get_array()
    rows, columns = (12, channels) if channels in (2, 5) else (3, 7)
    assert sheet.shape[:2] == (rows * 9 - 1, columns * 9 - 1)
    count = 12 if channels in (2, 5) else 16
    assert f"first {count} principal components" in figure.axes[0].get_title()
    assert figure.axes[0].get_xlabel() == f"{100 * count / 16:.0f} % of the filters' variance"
    assert ("RGB" in figure.axes[0].get_title()) == (channels == 3)


def test_the_tile_of_a_patch_is_where_the_patch_is() -> None:
    model = inspect_small()
    figure = draw_positions([model])
    sheet = np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))
    tiles = model["positions/similarity"]
    assert tiles.shape == (4, 6, 4, 6)
    gap = 1
    top, left = 2 * (4 + gap), 3 * (6 + gap)
    np.testing.assert_array_equal(sheet[top : top + 4, left : left + 6], tiles[2, 3])


def test_models_stand_side_by_side_each_with_its_own_dots() -> None:
    models = [inspect_small(), inspect_small("hybrid"), inspect_small("AxialViT token")]
    figure = draw_by_depth(models, "distances")
    panels = figure.axes
    assert len(panels) == 3
    for axes, model in zip(panels, models, strict=True):
        dots = np.stack([collection.get_offsets()[:, 1] for collection in axes.collections], axis=1)
        np.testing.assert_allclose(dots, model["reach/distances"])
    assert panels[0].get_ylim() == panels[2].get_ylim()
    assert "rows, columns" in panels[2].get_xlabel()
    assert len(draw_positions(models[:2]).axes) == 3  # and the bar of colours


def test_models_of_one_name_are_told_apart_by_their_source() -> None:
    models = [inspect_small(), inspect_small("hybrid")]
    titles = [axes.get_title() for axes in draw_positions(models).axes[:2]]
    assert titles == ["small\nruns/ViT", "small\nruns/hybrid"]
    assert draw_positions(models[:1]).axes[0].get_title() == "small"


def test_a_picture_is_lit_as_in_the_paper() -> None:
    """The author's lines, in the order of the official repository's issue 27."""
    picture = Image.fromarray(np.full((40, 60, 3), 200, np.uint8))
    attention = np.random.default_rng(0).random((4, 6))
    levels = Image.fromarray(np.round(255 * attention / attention.max()).astype(np.uint8))
    levels = levels.resize((60, 40), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(10))
    mask = np.asarray(levels, dtype=np.float64)
    mask = (mask - mask.min()) / (mask.max() - mask.min())
    lit = np.asarray(brighten_by_attention(picture, attention), dtype=np.float64)
    np.testing.assert_allclose(lit, 200 * mask[..., None].repeat(3, 2), atol=0.51)


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_even_attention_leaves_the_picture_as_it_is(value: float) -> None:
    picture = Image.fromarray(np.full((8, 12, 3), 90, np.uint8))
    lit = brighten_by_attention(picture, np.full((2, 3), value))
    np.testing.assert_array_equal(np.asarray(lit), np.asarray(picture))


def test_a_map_lies_over_what_its_grid_covers_and_no_more() -> None:
    """Of 30 x 44 pixels patches of 8 cover 24 x 40; cells of 9 reach over the rim."""
    picture = Image.fromarray(np.full((60, 88, 3), 128, np.uint8))
    colors = np.zeros((3, 5, 3))
    colors[2, 4] = 1
    drawn = np.asarray(over(picture, colors, coloured, covered=(24 / 30, 40 / 44)))
    assert drawn.shape == (60, 88, 3)
    assert (drawn[48:] == 128).all()
    assert (drawn[:, 80:] == 128).all()
    assert (drawn[32:48, 64:80] == 255).all()
    assert (drawn[:32, :64] == 0).all()
    colors = np.zeros((4, 5, 3))
    colors[3, 4] = 1
    beyond = np.asarray(over(picture, colors, coloured, covered=(36 / 30, 45 / 44)))
    assert beyond.shape == (60, 88, 3)
    assert (beyond[54:, 72:] == 255).all()
    assert (beyond[:54] == 0).all()


def test_a_gallery_leaves_what_no_patch_covers_as_it_is() -> None:
    """Of 30 x 44 pixels the last 6 rows and 4 columns."""
    sheet = draw_features(inspect_small("ViT", image_size=(30, 44))).axes[0].images[0].get_array()
    height, width, gap = 218, 320, 16
    picture, drawn = sheet[:height, :width], sheet[:height, width + gap : 2 * width + gap]
    right, bottom = round(width * 40 / 44), round(height * 24 / 30)
    np.testing.assert_array_equal(drawn[:, right:], picture[:, right:])
    np.testing.assert_array_equal(drawn[bottom:], picture[bottom:])
    assert not np.array_equal(drawn[:bottom, :right], picture[:bottom, :right])


def test_images_that_patches_do_not_tile_are_covered_in_part() -> None:
    model = inspect_small("ViT", image_size=(30, 44))
    assert model.covered("patches") == (24 / 30, 40 / 44)
    assert model.covered("occlusion") == (24 / 30, 40 / 44)
    other = inspect_small("BiT", image_size=(30, 44))
    assert other.covered("patches") == (1, 1)
    assert other.covered("occlusion") == (1, 1)  # cells of 2


def test_occlusion_is_red_where_the_probability_falls_and_blue_where_it_rises() -> None:
    picture = Image.fromarray(np.full((20, 30, 3), 128, np.uint8))
    fall = np.zeros((2, 3))
    fall[0, 2], fall[1, 0] = 0.5, -0.5
    drawn = np.asarray(coloured_fall(picture, fall)).astype(int)
    red, blue, still = drawn[5, 25], drawn[15, 5], drawn[5, 5]
    assert red[0] > red[2] + 40
    assert blue[2] > blue[0] + 40
    np.testing.assert_array_equal(still, 128)


def test_nothing_that_falls_changes_nothing() -> None:
    picture = Image.fromarray(np.full((4, 6, 3), 128, np.uint8))
    drawn = coloured_fall(picture, np.zeros((2, 3)))
    np.testing.assert_array_equal(np.asarray(drawn), 128)


def test_an_image_without_classes_is_named() -> None:
    model = inspect_small("ViT", num_classes=0)
    assert answers(model) == ["0", "1"]
    assert "occlusion/fall" not in model


def test_names_that_the_font_lacks_and_falls_near_100_points_are_said() -> None:
    model = inspect_small()
    falls = model["occlusion/fall"] * 0 + 0.996
    falls[1] = -0.2
    names = np.array(["\u732b", "\u732b"])
    other = Inspected(
        {**model.arrays, "occlusion/fall": falls, "occlusion/classes": names},
    )
    labels = [text.get_text() for text in draw_occlusion(other).axes[0].get_yticklabels()]
    assert labels == [
        "(a name without letters of the font)\nfalls by up to 99.6 points",
        "(a name without letters of the font)\nfalls by up to 0.0 points",
    ]


def test_what_a_figure_leaves_out_is_said() -> None:
    model = inspect_small()
    heads = np.random.default_rng(0).random((2, 24, 4, 6))
    figure = draw_heads(Inspected({**model.arrays, "attention/of_pool": heads}))
    assert figure.axes[0].get_xlabel() == "heads 0 to 15 of 24"
    many = {
        name: array.repeat(10, axis=0) if len(array.shape) and len(array) == 2 else array
        for name, array in model.arrays.items()
    }
    figure = draw_rollouts(Inspected(many))
    assert figure.axes[0].get_xlabel() == "the first 16 of 20 images"


@pytest.mark.parametrize("fields", [{"in_channels": 1}, {"num_classes": 0}, {"image_size": 8}])
def test_odd_models_are_drawn_too(fields: dict[str, int], tmp_path: Path) -> None:
    drawn = draw_figures(inspect_small("ViT", count=1, **fields), tmp_path)
    assert len(drawn) == 7 + ("num_classes" not in fields)


def test_only_what_an_inspection_wrote_is_removed(tmp_path: Path) -> None:
    draw_figures(inspect_small(), tmp_path)
    other = tmp_path / "notes.png"
    other.write_bytes(b"mine")
    write_inspected(tmp_path, inspect_small(), name="beside-1.npz")
    remove_figures(tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_tiles_are_put_row_by_row() -> None:
    sheet = tiled(np.arange(5.0)[:, None, None].repeat(2, 1).repeat(3, 2), 2)
    assert sheet.shape == (8, 7)
    assert sheet[0, 0] == 0
    assert sheet[0, 4] == 1
    assert sheet[3, 0] == 2
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[6:, 4:]).all()  # the sixth
    np.testing.assert_array_equal(tile_centres(2, 3), [1, 5])


def test_values_are_spread_each_by_itself() -> None:
    values = np.array([[0.0, 2.0], [5.0, 5.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(rescale(values), [[0, 1], [0.5, 0.5], [0, 1]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't be read"),
        (b"PK no archive", "can't be read"),
        (b"", "can't be read"),
        ("other", "was not written by"),
        ("one", "was not written by"),
    ],
)
def test_what_is_no_inspection_is_told(
    content: bytes | str | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "inspect.npz"
    if content == "other":
        np.savez(path, images=np.zeros(3))
    elif content == "one":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(RequestError, match=words):
        read_inspected(tmp_path)


def test_arrays_and_facts_are_found_by_name() -> None:
    model = Inspected({"about": np.array('{"model": "ViT-B/16"}')})
    assert model.title == "ViT-B/16"
    assert "images/names" not in model
    assert model.num_images == 0
