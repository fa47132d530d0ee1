"""`vitral data`: what a source holds, what is wrong with it, and packing it into shards."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import write_patterns

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
    stdout = capsys.readouterr().out
    assert "data: photos: 2 classes," in stdout
    assert "skipped 1 files: 1 not an image" in stdout
    rows = {line.split()[0]: line.split()[1:] for line in stdout.splitlines() if "  " in line}
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
    stdout = capsys.readouterr().out
    assert "class29" in stdout
    assert "class30" not in stdout
    assert "and 10 more: --all lists them" in stdout
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


@pytest.fixture
def split_photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(12):
            path = tmp_path / "photos" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_good_data_is_said_to_be_good(
    split_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(split_photos)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data: photos: 36 usable images (12 train, 12 validation, 12 test)"
    assert lines[-1] == "verdict: good: nothing to complain about"


def test_bad_data_is_named_and_ends_with_status_3(
    split_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        (split_photos / "train" / "a" / f"bad{number}.png").write_bytes(b"")
    shutil.copy(split_photos / "train" / "b" / "1.png", split_photos / "test" / "b" / "leak.png")
    assert main(["data", "check", str(split_photos)]) == 3
    stdout = capsys.readouterr().out
    assert "x 7 files can't be read" in stdout
    assert "    train/a/bad0.png (an empty file)" in stdout
    assert "    and 2 more: --all names them" in stdout
    assert "    test/b/leak.png = train/b/1.png (test, b; train, b)" in stdout
    assert main(["data", "check", str(split_photos), "--all"]) == 3
    assert "train/a/bad6.png" in capsys.readouterr().out


def test_everything_is_in_the_json(split_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(split_photos / "train" / "b" / "1.png", split_photos / "test" / "b" / "leak.png")
    assert main(["data", "check", str(split_photos), "--json"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record["is_good"] is False
    (problem,) = record["problems"]
    assert problem["kind"] == "across_splits"
    assert problem["items"] == [
        {"files": ["test/b/leak.png", "train/b/1.png"], "detail": "test, b; train, b"}
    ]


def test_a_list_and_a_page_are_written(
    split_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(split_photos / "train" / "b" / "1.png", split_photos / "test" / "b" / "leak.png")
    clean, page = split_photos / ".." / "clean.csv", split_photos / ".." / "check.html"
    assert (
        main(["data", "check", str(split_photos), "--fix", str(clean), "--report", str(page)]) == 3
    )
    assert "lists 36 images; train on it" in capsys.readouterr().out
    assert main(["data", "check", str(clean)]) == 0
    text = page.read_text()
    assert text.count("data:image/png;base64") == 2
    assert "test/b/leak.png" in text


def test_data_is_compared_to_other_data(
    split_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = split_photos / ".." / "other"
    (other / "x").mkdir(parents=True)
    shutil.copy(split_photos / "train" / "b" / "1.png", other / "x" / "mine.png")
    Image.new("RGB", (30, 30), (1, 2, 3)).save(other / "x" / "2.png")
    assert main(["data", "check", str(split_photos), "--against", str(other)]) == 3
    assert "train/b/1.png = x/mine.png (the same content)" in capsys.readouterr().out


def test_folds_are_counted(split_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(split_photos / "train"), "--folds", "3"]) == 0
    stdout = capsys.readouterr().out
    assert "    a: [2, 2, 2]" in stdout
    assert "    b: [2, 2, 2]" in stdout


def test_groups_are_found_in_names(split_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = r"(\d+)\.png"
    assert main(["data", "check", str(split_photos), "--group-pattern", pattern]) == 3
    assert "x 12 groups are in more than one split" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fix", "nowhere/a.csv"], "nowhere/a.csv: there is no such folder"),
        (["--folds", "1"], "folds=1: give 2 or more"),
        (["--against", "nowhere/"], "there is nothing at nowhere"),
    ],
)
def test_mistakes_of_check_are_one_line(
    split_photos: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(split_photos), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--fix", "--report"])
@pytest.mark.parametrize("place", ["photos/train/a/0.png", "photos/clean.csv", "new.png"])
def test_nothing_is_written_where_the_data_lies(
    split_photos: Path, option: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = split_photos.parent / place
    before = target.read_bytes() if target.exists() else None
    assert main(["data", "check", str(split_photos), option, str(target)]) == 2
    assert "would change the data: give another path" in capsys.readouterr().err
    assert (target.read_bytes() if target.exists() else None) == before


def test_a_list_is_not_replaced_by_its_cleaned_one(
    split_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = split_photos.parent / "own.csv"
    rows = [f"photos/{split}/a/0.png,a,mine" for split in ("train", "val", "test")]
    path.write_text("\n".join(["path,label,extra", *rows, "photos/train/b/1.png,b,mine"]))
    before = path.read_bytes()
    assert main(["data", "check", str(path), "--fix", str(path)]) == 2
    assert path.read_bytes() == before


@pytest.fixture
def pack_photos(tmp_path: Path) -> Path:
    for number in range(24):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 9, 200)).save(path)
    (tmp_path / "photos" / "a" / "notes.txt").write_text("mine")
    return tmp_path / "photos"


def test_it_says_what_it_wrote(pack_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "pack", str(pack_photos), "--output", str(pack_photos / ".." / "packed")]
    assert main([*command, "--resize", "16", "--quality", "80", "--images-per-shard", "7"]) == 0
    stdout = capsys.readouterr().out
    assert " train, " in stdout
    assert "images    images with a shorter side above 16 pixels were shrunk to it" in stdout
    assert "quality 80" in stdout
    assert "left out  1 files" in stdout


def test_what_it_wrote_is_data(pack_photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = str(pack_photos / ".." / "packed")
    assert main(["data", "pack", str(pack_photos), "--output", packed, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["path"] == packed
    assert main(["data", "info", packed, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: part["num_images"] for name, part in report["splits"].items()} == written[
        "splits"
    ]
    assert report["notes"] == written["notes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--output is missing: give the folder that the shards shall go to"),
        (["--output", "x", "--quality", "9"], "--quality 9 has no effect without --resize"),
        (["--output", "x", "--images-per-shard", "0"], "images_per_shard=0: give 0 or more pixels"),
    ],
)
def test_mistakes_of_pack_are_one_line(
    pack_photos: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "pack", str(pack_photos), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
