"""Training, scores and prediction of images of more than eight bits use their true range."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import TINY_MODEL, pattern_images

import vitral
from vitral.data.decode import decode_image
from vitral.data.transforms import preprocess
from vitral.training.results import Result


def write_folder(root: Path, *, scale: int, kind: str = "TIFF") -> Path:
    """Write patterns of 0..219, times `scale`, as images of 16 bits in class folders."""
    images, labels = pattern_images(80)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = "train" if number < 60 else "test"
        path = root / split / "abcd"[label] / f"{number}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint16) * scale).save(path, kind)
    return root


def train(data: Path, output: Path) -> Result:
    return vitral.train("ViT-Mi/4", data, epochs=1, output=output, quiet=True, settings=TINY_MODEL)


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_twelve_bits_in_sixteen_are_seen_as_twelve(tmp_path: Path, kind: str) -> None:
    """Read as 16 bits, or cut to 8, these images would be almost black or all white."""
    data = write_folder(tmp_path / "data", scale=18, kind=kind)  # 0..3942
    result = train(data, tmp_path / "run")
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config["preprocessing"]["levels"] == [0.0, 4095.0]
    assert config["preprocessing"]["rounding"] == "none"
    assert "0 is black, 4095 white" in (tmp_path / "run/log.txt").read_text()
    path = next((data / "test" / "a").iterdir())
    values = decode_image(path.read_bytes(), channels=3)
    seen = preprocess(values, result.model.preprocessing)
    np.testing.assert_allclose(seen, values / 4095 * 255, atol=1e-3)
    by_file, by_array = vitral.Predictor(tmp_path / "run")([path, np.asarray(Image.open(path))])
    assert by_file.top == by_array.top


def test_the_data_report_states_the_range(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", scale=300)
    train(data, tmp_path / "run")
    report = json.loads((tmp_path / "run/data_report.json").read_text())
    assert any("80 images of more than 8 bits, of values from 0 to" in n for n in report["notes"])


def test_images_of_eight_bits_need_no_levels(tmp_path: Path) -> None:
    images, labels = pattern_images(40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = (
            tmp_path / "data" / ("train", "test")[number % 5 == 0] / "abcd"[label] / f"{number}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        path.write_bytes(file.getvalue())
    train(tmp_path / "data", tmp_path / "run")
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config["preprocessing"]["levels"] is None
