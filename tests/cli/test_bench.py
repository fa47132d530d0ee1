"""`vitral bench data`: how fast data is loaded, and what would make it faster."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.cli.main import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "photos"
    random = np.random.default_rng(0)
    for number in range(40):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitral.benchmark.data._SECONDS", 0.1)


COMMAND = ["--model", "ViT-Mi/8", "--image-size", "32", "--threads", "0,2", "--device", "cpu"]


def test_it_measures_each_number_of_threads(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "data", str(photos), *COMMAND, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [row["workers"] for row in measured["rows"]] == [0, 2]
    for row in measured["rows"]:
        rate, bare = row["images_per_second"], row["bare_images_per_second"]
        assert row["share_of_bare"] == pytest.approx(rate / bare)
        needed = measured["needed_images_per_second"]
        assert row["share_of_need"] == pytest.approx(rate / needed)
        assert rate > 0
    assert set(measured["stages"]) >= {"read", "decode", "augment", "collate", "to_device", "bare"}
    assert measured["bottleneck"] in measured["stages"]
    assert measured["model"] == "ViT-Mi/8"


def test_it_names_the_bottleneck_in_words(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "data", str(photos), *COMMAND, "--scaled-decoding"]) == 0
    stdout = capsys.readouterr().out
    assert "0.01 megapixels" in stdout
    assert "crop and resize" in stdout
    assert "of what ViT-Mi/8 needs" in stdout
    assert "takes most" in stdout


@pytest.mark.slow
def test_arrays_are_measured_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((60, 20, 20), np.uint8)
    images[:, 0, 0] = np.arange(60)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(60) % 2)
    assert main(["bench", "data", str(tmp_path / "a.npz"), *COMMAND]) == 0
    assert "loading is" in capsys.readouterr().out


def test_the_actions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for tokens in (["bench"], ["bench", "--help"]):
        assert main(tokens) == 0
        assert "vitral bench data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["bench", "date", "x"], "vitral bench has no action 'date': did you mean 'data'?"),
        (["bench", "data", "x", "--threads", "a"], "--threads a: give numbers of threads"),
        (["bench", "data", "x", "--threads", "-1"], "--threads -1: give numbers of threads"),
        (["bench", "data", "nowhere/"], "there is nothing at nowhere"),
        (["bench", "data", "x", "--model", "ViT-Q/3"], "ViT-Q/3"),
    ],
)
def test_mistakes_are_one_line(
    tokens: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tokens) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
