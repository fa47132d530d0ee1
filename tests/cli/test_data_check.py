"""`vitral data check`: what is wrong with data, and the exit status that says so."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.cli.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(12):
            path = tmp_path / "photos" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_good_data_is_said_to_be_good(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "data: photos: 36 usable images (12 train, 12 validation, 12 test)"
    assert said[-1] == "verdict: good: nothing to complain about"


def test_bad_data_is_named_and_ends_with_status_3(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        (photos / "train" / "a" / f"bad{number}.png").write_bytes(b"")
    shutil.copy(photos / "train" / "b" / "1.png", photos / "test" / "b" / "leak.png")
    assert main(["data", "check", str(photos)]) == 3
    said = capsys.readouterr().out
    assert "x 7 files can't be read" in said
    assert "    train/a/bad0.png (an empty file)" in said
    assert "    and 2 more: --all names them" in said
    assert "    test/b/leak.png = train/b/1.png (test, b; train, b)" in said
    assert main(["data", "check", str(photos), "--all"]) == 3
    assert "train/a/bad6.png" in capsys.readouterr().out


def test_everything_is_in_the_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(photos / "train" / "b" / "1.png", photos / "test" / "b" / "leak.png")
    assert main(["data", "check", str(photos), "--json"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record["is_good"] is False
    (problem,) = record["problems"]
    assert problem["kind"] == "across_splits"
    assert problem["items"] == [
        {"files": ["test/b/leak.png", "train/b/1.png"], "detail": "test, b; train, b"}
    ]


def test_a_list_and_a_page_are_written(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(photos / "train" / "b" / "1.png", photos / "test" / "b" / "leak.png")
    clean, page = photos / ".." / "clean.csv", photos / ".." / "check.html"
    assert main(["data", "check", str(photos), "--fix", str(clean), "--report", str(page)]) == 3
    assert "lists 36 images; train on it" in capsys.readouterr().out
    assert main(["data", "check", str(clean)]) == 0
    text = page.read_text()
    assert text.count("data:image/png;base64") == 2
    assert "test/b/leak.png" in text


def test_data_is_compared_to_other_data(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = photos / ".." / "other"
    (other / "x").mkdir(parents=True)
    shutil.copy(photos / "train" / "b" / "1.png", other / "x" / "mine.png")
    Image.new("RGB", (30, 30), (1, 2, 3)).save(other / "x" / "2.png")
    assert main(["data", "check", str(photos), "--against", str(other)]) == 3
    assert "train/b/1.png = x/mine.png (the same content)" in capsys.readouterr().out


def test_folds_are_counted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos / "train"), "--folds", "3"]) == 0
    said = capsys.readouterr().out
    assert "    a: [2, 2, 2]" in said
    assert "    b: [2, 2, 2]" in said


def test_groups_are_found_in_names(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = r"(\d+)\.png"
    assert main(["data", "check", str(photos), "--group-pattern", pattern]) == 3
    assert "x 12 groups are in more than one split" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fix", "nowhere/a.csv"], "nowhere/a.csv: there is no such folder"),
        (["--folds", "1"], "folds=1: give 2 or more"),
        (["--against", "nowhere/"], "there is nothing at nowhere"),
    ],
)
def test_mistakes_are_one_line(
    photos: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(photos), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--fix", "--report"])
@pytest.mark.parametrize("place", ["photos/train/a/0.png", "photos/clean.csv", "new.png"])
def test_nothing_is_written_where_the_data_lies(
    photos: Path, option: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = photos.parent / place
    before = target.read_bytes() if target.exists() else None
    assert main(["data", "check", str(photos), option, str(target)]) == 2
    assert "would change the data: give another path" in capsys.readouterr().err
    assert (target.read_bytes() if target.exists() else None) == before


def test_a_list_is_not_replaced_by_its_cleaned_one(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = photos.parent / "own.csv"
    rows = [f"photos/{split}/a/0.png,a,mine" for split in ("train", "val", "test")]
    own.write_text("\n".join(["path,label,extra", *rows, "photos/train/b/1.png,b,mine"]))
    before = own.read_bytes()
    assert main(["data", "check", str(own), "--fix", str(own)]) == 2
    assert own.read_bytes() == before
