"""`vitral data`: what a source holds."""

import json
from pathlib import Path

import pytest
from helpers import write_patterns
from PIL import Image

from vitral.cli.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(24):
        path = tmp_path / "photos" / ("wren", "käuzchen")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10 + number), (number, 9, 200)).save(path)
    (tmp_path / "photos" / "wren" / "notes.txt").write_text("mine")
    return tmp_path / "photos"


def test_it_says_what_is_there_and_what_is_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "info", str(photos)]) == 0
    said = capsys.readouterr().out
    assert "data: photos: 2 classes," in said
    assert "skipped 1 files: 1 not an image" in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if "  " in line}
    assert [sum(map(int, rows[name])) for name in ("wren", "käuzchen")] == [12, 12]
    assert rows["class"] == ["train", "validation", "test"]


def test_it_gives_everything_as_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(photos), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["classes"] == ["käuzchen", "wren"]
    assert report["labels"] == "one"
    assert report["skipped"]["examples"] == [["wren/notes.txt", "not an image"]]


def test_several_labels_are_said(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"wren/{n}.png,{'a|b' if n % 4 else 'a'}" for n in range(0, 24, 2)]
    (photos / "own.csv").write_text("\n".join(["path,labels", *rows]))
    assert main(["data", "info", str(photos / "own.csv")]) == 0
    assert "each image may have any of the classes" in capsys.readouterr().out


def test_many_classes_are_cut_unless_all_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(80):
        path = tmp_path / "many" / f"class{number // 2:02}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    assert main(["data", "info", str(tmp_path / "many")]) == 0
    said = capsys.readouterr().out
    assert "class29" in said
    assert "class30" not in said
    assert "and 10 more: --all lists them" in said
    assert main(["data", "info", str(tmp_path / "many"), "--all"]) == 0
    assert "class39" in capsys.readouterr().out


def test_a_built_in_set_and_arrays_are_data_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "info", str(write_patterns(tmp_path / "a.npz"))]) == 0
    assert "80 train, 20 validation, 20 test images" in capsys.readouterr().out


def test_the_actions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for tokens in (["data"], ["data", "--help"]):
        assert main(tokens) == 0
        assert "vitral data info" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "status", "message"),
    [
        (["data", "inof", "x"], 2, "vitral data has no action 'inof': did you mean 'info'?"),
        (["data", "info"], 2, "required: DATA"),
        (["data", "info", "nowhere/"], 2, "there is nothing at nowhere"),
        (["data", "info", "x", "--al"], 2, "there is no option --al: did you mean 'all'?"),
    ],
)
def test_mistakes_are_one_line(
    tokens: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tokens) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
