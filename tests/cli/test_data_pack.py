"""`vitral data pack`: any source into shards."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vitral.cli.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(24):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 9, 200)).save(path)
    (tmp_path / "photos" / "a" / "notes.txt").write_text("mine")
    return tmp_path / "photos"


def test_it_says_what_it_wrote(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "pack", str(photos), "--output", str(photos / ".." / "packed")]
    assert main([*command, "--resize", "16", "--quality", "80", "--images-per-shard", "7"]) == 0
    said = capsys.readouterr().out
    assert " train, " in said
    assert "images    images with a shorter side above 16 pixels were shrunk to it" in said
    assert "quality 80" in said
    assert "left out  1 files" in said


def test_what_it_wrote_is_data(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = str(photos / ".." / "packed")
    assert main(["data", "pack", str(photos), "--output", packed, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == packed
    assert main(["data", "info", packed, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: part["num_images"] for name, part in report["splits"].items()} == said["splits"]
    assert report["notes"] == said["notes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--output is missing: give the folder that the shards shall go to"),
        (["--output", "x", "--quality", "9"], "--quality 9 has no effect without --resize"),
        (["--output", "x", "--images-per-shard", "0"], "images_per_shard=0: give 0 or more pixels"),
    ],
)
def test_mistakes_are_one_line(
    photos: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "pack", str(photos), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
