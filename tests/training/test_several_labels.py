"""Multi-label images: training, scores per class, prediction and report."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.runs import TINY_MODEL

import vitral
from vitral.cli.main import main
from vitral.errors import DataError, RequestError
from vitral.evaluate.evaluate import evaluate
from vitral.files.rows import read_rows

CLASSES = ("bottom", "left", "right", "top")


def write_list(root: Path, count: int = 240) -> Path:
    """Write images with one edge per class, bright if the image has the class."""
    random = np.random.default_rng(0)
    rows = ["path,labels"]
    for number in range(count):
        bottom, left, right, top = random.random(4) < 0.4
        image = random.integers(0, 90, (8, 8))
        image[6:] += 150 * bottom
        image[:2] += 150 * top
        image[:, :2] += 150 * left
        image[:, 6:] += 150 * right
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        names = [n for n, has in zip(CLASSES, (bottom, left, right, top), strict=True) if has]
        rows.append(f"{number}.png,{'|'.join(names)}")
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root / "list.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, vitral.train]:
    root = tmp_path_factory.mktemp("several")
    settings = TINY_MODEL | {"model.patch_size": 2, "model.in_channels": 1, "augment.flip": False}
    data = write_list(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITRAL_REPORT")
        result = vitral.train(
            "ViT-Mi/2", data, steps=400, learning_rate=3e-3, output=root / "run", quiet=True,
            settings=settings | {"augment.crop": "none"},
        )  # fmt: skip
    return data, result


def test_each_class_is_learned_by_itself(trained) -> None:
    summary = trained[1].summary
    assert summary["f1_micro"] > 0.85
    assert summary["mean_average_precision"] > 0.9
    assert summary["accuracy"] > summary["majority_accuracy"] + 0.2
    assert summary["pixel_accuracy"] is None
    assert trained[1].model.output == "sigmoid"


def test_the_score_counts_pairs_of_image_and_class(trained) -> None:
    data, result = trained
    found = evaluate(result.path, data)
    for name in ("accuracy", "mean_average_precision", "f1_micro", "f1_macro", "num_examples"):
        assert found.summary[name] == pytest.approx(result.summary[name])
    right = 0
    for row in found.rows():
        assert set(row["label"].split("|")) <= {*CLASSES, ""}
        right += row["label"] == row["class"]
    assert right == round(found.summary["accuracy"] * found.summary["num_examples"])


def test_training_rows_and_splits_speak_of_all_classes(trained) -> None:
    path = trained[1].path
    rows = [row for row in read_rows(path / "metrics.jsonl") if row["split"] == "validation"]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
    assert "|" in (path / "splits.csv").read_text()
    report = json.loads((path / "data_report.json").read_text())
    assert sum(report["splits"]["train"]["per_class"]) > report["splits"]["train"]["num_images"]


def test_the_report_and_the_command_line_say_how_each_class_fares(
    trained, capsys: pytest.CaptureFixture[str]
) -> None:
    data, result = trained
    page = (result.path / "report.html").read_text()
    for text in (
        "Average precision",
        "are right in all of their classes",
        "Mean average precision",
    ):
        assert text in page
    assert main(["evaluate", str(result.path), str(data)]) == 0
    assert "classes   mean average precision" in capsys.readouterr().out


def test_predictions_have_a_probability_for_each_class(trained) -> None:
    data, result = trained
    prediction = vitral.Predictor(result.path)(data.parent / "0.png")[0]
    assert {name for name, _ in prediction.top} == set(CLASSES)


def test_what_is_for_one_class_an_image_is_refused(trained, tmp_path: Path) -> None:
    data, _ = trained
    with pytest.raises(RequestError, match="'softmax' is for one class an image, .* use sigmoid"):
        vitral.train("ViT-Mi/2", data, objective="softmax", output=tmp_path / "a", quiet=True)
    with pytest.raises(RequestError, match="the metric top5 is for images of one class"):
        vitral.train(
            "ViT-Mi/2", data, metrics=["top5"], steps=1, output=tmp_path / "b", quiet=True,
            settings=TINY_MODEL,
        )  # fmt: skip
    model = vitral.create_model("ViT-Mi/2", image_size=8, num_classes=4)
    model.head.weight.data.normal_()
    model.classes = CLASSES
    vitral.save_model(model, tmp_path / "single")
    with pytest.raises(DataError, match="several labels an image, the model was trained for one"):
        evaluate(tmp_path / "single", data)
