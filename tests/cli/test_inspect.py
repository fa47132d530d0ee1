"""`vitral inspect`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import photograph
from support.small_models import build_small

from vitral import save_model
from vitral.cli.inspect import PHOTOS
from vitral.cli.main import main
from vitral.figures.inspection.draw import draw_figures, draw_folder
from vitral.figures.inspection.inspected import read_inspected


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and photographs."""
    root = tmp_path_factory.mktemp("inspect")
    for name, family in (("vit", "ViT"), ("hybrid", "hybrid"), ("bit", "BiT")):
        save_model(build_small(family), root / name)
    (root / "photos").mkdir()
    for number in range(3):
        pixels = np.roll(photograph(40, 60), 9 * number, axis=1)
        Image.fromarray(pixels).save(root / "photos" / f"{number}.png")
    (root / "photos" / "notes.txt").write_text("no image")
    return root


@pytest.fixture(autouse=True)
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("vitral.figures.plots.DOTS_PER_INCH", 30)


def test_it_writes_a_page_figures_and_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "vit", "photos/0.png", "photos/1.png", "--output", "looks"]) == 0
    files = {path.name for path in Path("looks").iterdir()}
    figures = {
        f"{name}.{ending}"
        for name in (
            "rollout", "heads", "occlusion", "features", "filters", "positions", "distance",
            "entropy",
        )
        for ending in ("png", "svg")
    }  # fmt: skip
    assert files == {"inspect.html", "inspect.npz"} | figures
    out = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in out] == ["0.png", "1.png", "looks/inspect.html"]


def test_it_says_what_it_looked_at_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["inspect", "vit", "photos", "--gallery", "1", "--occlusion", "off", "--layers", "-1"]
    assert main([*command, "--output", "json", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["page"] == "json/inspect.html"
    assert facts["kept_heads"] == ["block01/attention"]
    assert "occlusion" not in facts["figures"]
    found = read_inspected(Path("json"))
    assert found.num_images == 1
    assert found["reach/num_images"] == 3


def test_any_resolution_that_is_not_square_too() -> None:
    command = ["inspect", "vit", "photos/0.png", "--image-size", "40x24", "--occlusion", "off"]
    assert main([*command, "--output", "tall"]) == 0
    found = read_inspected(Path("tall"))
    assert found.about["grid"] == [5, 3]
    assert found["positions/similarity"].shape == (5, 3, 5, 3)
    assert found["attention/rollouts"].shape == (1, 2, 5, 3)


def test_other_models_are_drawn_beside_it(place: Path) -> None:
    command = ["inspect", "vit", "photos", "--occlusion", "off", "--gallery", "2"]
    assert main([*command, "--output", "beside", "--beside", "hybrid", "--beside", "bit"]) == 0
    other = read_inspected(Path("beside/beside-1.npz"))
    assert other["reach/num_images"] == 3
    drawn = Path("beside/distance.png").read_bytes()
    draw_figures(read_inspected(Path("beside")), place)  # the first one alone
    draw_folder(Path("beside"))
    assert Path("beside/distance.png").read_bytes() == drawn
    widths = []
    for path in (place / "distance.png", Path("beside/distance.png")):
        with Image.open(path) as picture:
            widths.append(picture.width)
    assert widths[1] > 1.5 * widths[0]


def test_without_images_it_uses_the_built_in_photographs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", "vit", "--occlusion", "off"]) == 0
    out = capsys.readouterr().out.splitlines()
    names = ["astronaut.jpg", "cat.jpg", "coffee.jpg", "rocket.jpg"]
    assert [line.split(":")[0] for line in out] == [*names, "runs/inspect-vit/inspect.html"]


def test_another_look_leaves_nothing_of_the_one_before() -> None:
    command = ["photos/0.png", "--occlusion", "off", "--output", "again"]
    assert main(["inspect", "vit", *command, "--beside", "hybrid"]) == 0
    Path("again/notes.txt").write_text("mine")
    assert main(["inspect", "bit", *command]) == 0
    names = {path.stem for path in Path("again").iterdir()}
    assert names == {"inspect", "features", "filters", "notes"}


@pytest.mark.parametrize("name", ["features.png", "inspect.html", "beside-1.npz", "inspect.npz"])
def test_files_of_somebody_else_are_not_replaced(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(b"mine")
    assert main(["inspect", "vit", "--output", str(tmp_path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_options_reach_the_measurements() -> None:
    command = ["inspect", "vit", "photos/0.png", "--occlusion", "off", "--output"]
    assert main([*command, "plain"]) == 0
    assert main([*command, "top", "--top", "2", "--set", "preprocessing.crop_share=0.5"]) == 0
    plain, found = read_inspected(Path("plain")), read_inspected(Path("top"))
    assert plain["images/top_classes"].shape == (1, 5)
    assert found["images/top_classes"].shape == (1, 2)
    assert not np.array_equal(plain["images/pictures"], found["images/pictures"])


def test_a_file_in_place_of_the_folder_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    assert main(["inspect", "vit", "--output", "file"]) == 2
    assert "file is a file: name a folder" in capsys.readouterr().err
    assert Path("file").read_text() == "mine"


def test_a_head_of_zeros_is_said(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = build_small("ViT")
    with torch.no_grad():
        model.head.weight.zero_()
    save_model(model, "zeros")
    assert main(["inspect", "zeros", "photos/0.png", "--output", "of_zeros"]) == 0
    assert "zeros is no classifier" in caplog.text
    assert capsys.readouterr().out.splitlines() == ["of_zeros/inspect.html"]


def test_every_built_in_photograph_has_its_licence() -> None:
    licences = (PHOTOS / "LICENSES.md").read_text(encoding="utf-8")
    for path in PHOTOS.glob("*.jpg"):
        assert f"`{path.name}`" in licences


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["bit", "--layers", "0"], 2, "small has no tokens whose attention could be stepped"),
        (["vit", "--layers", "2"], 2, "there is no layer 2: small has 2, 0 to 1"),
        (["vit", "--layers", "last"], 2, "--layers last: give whole numbers from 0"),
        (["vit", "--class", "wren"], 2, "there is no class 'wren'"),
        (["vit", "--gallery", "0"], 2, "--gallery, --top and --batch-size must be 1 or more"),
        (["vit", "--class", "0", "--occlusion", "off"], 2, "--class has no effect with --occlusi"),
        (["vit", "--beside", "nowhere"], 2, "nowhere"),
        (["vit", "--image-size", "7"], 2, "image_size=(7, 7) is smaller than patch_size=(8, 8)"),
        (["vit", "photos/notes.txt"], 3, "photos/notes.txt: not an image"),
        (["vit", "nowhere.jpg"], 2, "nowhere.jpg"),
        (["nowhere"], 2, "nowhere"),
    ],
)
def test_what_can_t_be_looked_at_is_one_line(
    options: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *options, "--output", "never"]) == status
    error = capsys.readouterr().err.strip()
    assert words in error
    assert error.splitlines()[-1].startswith("vitral: ")
    assert not Path("never").exists()
