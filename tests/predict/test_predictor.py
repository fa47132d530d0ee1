import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import pattern_images

import vitral
from vitral.errors import ModelFileError, RequestError
from vitral.models.model import Model
from vitral.models.vit import ViT
from vitral.predict.output import find_images, write_predictions
from vitral.predict.predictor import Prediction, Predictor


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=1, num_heads=2, mlp_dim=32,
        num_classes=4, in_channels=1,
    )  # fmt: skip
    torch.nn.init.normal_(model.head.weight)
    model.classes = ("ape", "bee", "cow", "doe")
    return model


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    arrays, _ = pattern_images(3)
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for array, path in zip(arrays, paths, strict=True):
        Image.fromarray(array).save(path)
    return paths


def test_paths_arrays_and_pictures_give_the_same_answer(model: ViT, images: list[str]) -> None:
    predictor = Predictor(model)
    array = np.asarray(Image.open(images[0]))
    answers = predictor([images[0], Path(images[0]), array, Image.fromarray(array)])
    assert {answer.class_name for answer in answers} == {answers[0].class_name}
    assert {answer.probability for answer in answers} == {answers[0].probability}
    assert [answer.path for answer in answers] == [images[0], images[0], "2", "3"]


def test_probabilities_are_the_softmax_of_the_models_logits(model: ViT, images: list[str]) -> None:
    array = np.array(Image.open(images[1]))
    logits = model.eval()(torch.from_numpy(array)[None, None].float() / 127.5 - 1)
    wanted = dict(zip(model.classes or (), logits.softmax(dim=1)[0].tolist(), strict=True))
    [answer] = Predictor(model)(images[1])
    assert dict(answer.top) == pytest.approx(wanted, abs=1e-6)
    assert answer.probability == max(wanted.values()) or answer.probability == pytest.approx(
        max(wanted.values())
    )


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_batch_size_changes_no_answer(model: ViT, images: list[str], batch_size: int) -> None:
    alone = [Predictor(model)(path)[0] for path in images]
    together = Predictor(model, batch_size=batch_size)(images)
    for one, other in zip(alone, together, strict=True):
        assert one.path == other.path
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-5)


def test_an_unreadable_image_keeps_its_row(model: ViT, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    answers = Predictor(model)([images[0], tmp_path / "text.png", tmp_path / "gone.png", images[1]])
    assert [bool(answer.error) for answer in answers] == [False, True, True, False]
    assert answers[1].error == "not an image"
    assert answers[2].error == "there is no such file"
    assert answers[1].as_row() == {
        "path": str(tmp_path / "text.png"), "class": "", "probability": None, "top": [],
        "error": "not an image",
    }  # fmt: skip


def test_a_model_without_class_names_answers_with_numbers(images: list[str]) -> None:
    model = vitral.create_model("ViT-Mi/4", image_size=8, in_channels=1, num_classes=3)
    assert Predictor(model)(images[0])[0].class_name in ("0", "1", "2")


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ModelFileError, match="has no head, so it names no classes"):
        Predictor(vitral.create_model("ViT-Mi/4", image_size=8, num_classes=0))


def test_bad_numbers_are_refused(model: ViT) -> None:
    with pytest.raises(RequestError, match="must be 1 or more"):
        Predictor(model, top=0)


PREDICTIONS = [
    Prediction("a.png", (("ape", 0.75), ("bee, or wasp", 0.25))),
    Prediction("b.png", (), "not an image"),
]


def test_csv_has_a_column_for_each_rank(tmp_path: Path) -> None:
    write_predictions(PREDICTIONS, format="csv", path=tmp_path / "p.csv", top=2)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    assert rows[0] == {
        "path": "a.png", "class": "ape", "probability": "0.75", "class_1": "ape",
        "probability_1": "0.75", "class_2": "bee, or wasp", "probability_2": "0.25", "error": "",
    }  # fmt: skip
    assert rows[1]["error"] == "not an image"
    assert rows[1]["class_2"] == ""


def test_json_lines_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: extra `arrow`")
    write_predictions(PREDICTIONS, format="jsonl", path=tmp_path / "p.jsonl", top=2)
    write_predictions(PREDICTIONS, format="parquet", path=tmp_path / "p.parquet", top=2)
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    rows = [prediction.as_row() for prediction in PREDICTIONS]
    assert [json.loads(line) for line in lines] == rows
    assert parquet.read_table(tmp_path / "p.parquet").to_pylist() == rows


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    write_predictions(PREDICTIONS, format="table", path=None, top=2)
    assert capsys.readouterr().out == (
        "a.png: ape 75.0 %, bee, or wasp 25.0 %\nb.png: not an image\n"
    )


def test_parquet_needs_a_file() -> None:
    with pytest.raises(RequestError, match="--format parquet needs a file"):
        write_predictions(PREDICTIONS, format="parquet", path=None, top=2)


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("old")

    def broken() -> object:
        yield PREDICTIONS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(broken(), format="csv", path=path, top=2)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["p.csv"]


def test_folders_are_searched_and_files_taken_as_given(tmp_path: Path, images: list[str]) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "deep" / "er" / "x.JPG", "JPEG")
    Image.new("L", (4, 4)).save(tmp_path / "deep" / "no_suffix", "PNG")
    (tmp_path / "deep" / "notes.txt").write_text("text")
    found, num_others = find_images([str(tmp_path / "deep"), str(tmp_path / "deep/notes.txt")])
    assert [Path(path).name for path in found] == ["no_suffix", "x.JPG", "notes.txt"]
    assert num_others == 1


def test_a_path_without_anything_is_an_error() -> None:
    with pytest.raises(RequestError, match="there is nothing at nowhere.jpg"):
        find_images(["nowhere.jpg"])
