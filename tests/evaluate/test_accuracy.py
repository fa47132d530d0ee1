import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import TINY_MODEL, pattern_images, write_patterns
from PIL import Image

import vitral
from vitral.errors import DataError, ModelFileError, RequestError
from vitral.evaluate.accuracy import evaluate


def write_folder(root: Path, *, count: int = 120, start: int = 0) -> Path:
    """Write class folders without splits; every image has its own content."""
    images, labels = pattern_images(count + start)
    for number in range(start, count + start):
        folder = root / f"class{labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder") / "data")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    settings = TINY_MODEL | {"model.in_channels": 1}
    result = vitral.train(
        "ViT-Mi/4", folder, steps=6, batch_size=16, output=folder.parent / "run", settings=settings,
        quiet=True,
    )  # fmt: skip
    return result.path


def test_a_run_on_its_own_data_is_scored_on_its_own_split(run: Path, folder: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    again = evaluate(run, folder)
    shared = (
        "accuracy",
        "accuracy_interval",
        "split",
        "num_examples",
        "num_skipped",
        "model",
        "data",
    )
    assert {key: again.summary[key] for key in shared} == {key: summary[key] for key in shared}
    assert again.summary["loss"] == pytest.approx(summary["loss"], rel=1e-6)
    with (run / "splits.csv").open(newline="") as file:
        wanted = {row["path"] for row in csv.DictReader(file) if row["split"] == "test"}
    assert {row["path"] for row in again.rows()} == wanted


@pytest.mark.parametrize("place", ["model", "checkpoints/step-00000006"])
def test_parts_of_a_run_know_its_split_too(run: Path, folder: Path, place: str) -> None:
    assert evaluate(run / place, folder).summary["split"] == "test"


def test_images_that_came_later_are_not_in_the_stored_split(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    before = evaluate(run, folder).summary["num_examples"]
    new = write_folder(folder, count=20, start=200)
    assert evaluate(run, new).summary["num_examples"] == before
    for number in range(200, 220):
        for file in folder.glob(f"*/{number}.png"):
            file.unlink()


def test_other_data_without_splits_is_scored_whole(run: Path, tmp_path: Path) -> None:
    result = evaluate(run, write_folder(tmp_path / "other", count=30))
    assert result.summary["split"] == "all"
    assert result.summary["num_examples"] == 30


def test_splits_of_the_data_are_used(run: Path, tmp_path: Path) -> None:
    data = write_patterns(tmp_path / "d.npz", counts=(40, 12, 8))
    with np.load(data) as archive:
        arrays = dict(archive)
    arrays["classes"] = np.array([f"class{k}" for k in range(4)])
    np.savez(data, **arrays)
    assert evaluate(run, data).summary["num_examples"] == 8
    assert evaluate(run, data, split="train").summary["num_examples"] == 40


def test_classes_are_mapped_by_name_not_by_place(run: Path, tmp_path: Path) -> None:
    """A folder that lacks the first classes gets the same answers for the others."""
    data = write_folder(tmp_path / "some", count=40)
    import shutil

    shutil.rmtree(data / "class0")
    shutil.rmtree(data / "class1")
    result = evaluate(run, data)
    assert {row["label"] for row in result.rows()} == {"class2", "class3"}
    assert result.predictions.labels.min() == 2


def test_a_class_that_the_model_does_not_know_is_an_error(run: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "some", count=40)
    (data / "class0").rename(data / "zebra")
    with pytest.raises(DataError, match="has class 'zebra', which the model does not know"):
        evaluate(run, data)


def test_unreadable_images_stay_as_rows_and_are_counted(run: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "some", count=12)
    (data / "class0" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    result = evaluate(run, data)
    assert (result.summary["num_examples"], result.summary["num_skipped"]) == (12, 1)
    errors = [row for row in result.rows() if row["error"]]
    assert [row["path"] for row in errors] == ["class0/bad.jpg"]


def test_a_copied_model_folder_knows_its_runs_split(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(run / "model", tmp_path / "copied")
    own, copied = evaluate(run, folder).summary, evaluate(tmp_path / "copied", folder).summary
    assert (copied["split"], copied["num_examples"]) == ("test", own["num_examples"])
    assert copied["accuracy"] == own["accuracy"]


def test_a_copied_model_folder_refuses_its_data_once_that_has_changed(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(run / "model", tmp_path / "copied")
    new = folder / "class0" / "new.png"
    Image.fromarray(pattern_images(300)[0][299]).save(new)
    with pytest.raises(RequestError, match="which has changed since, and its run's"):
        evaluate(tmp_path / "copied", folder)
    new.unlink()


def test_other_objects_of_the_same_length_are_other_data(tmp_path: Path) -> None:
    images, labels = pattern_images(160)
    pairs = list(zip(images, labels.tolist(), strict=True))
    settings = TINY_MODEL
    result = vitral.train(
        "ViT-Mi/4", pairs[:80], steps=2, output=tmp_path / "r", settings=settings, quiet=True
    )
    assert evaluate(result.path, pairs[:80]).summary["split"] == "test"
    assert evaluate(result.path, pairs[80:]).summary["num_examples"] == 80


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "foo"}, "precision='foo' is not known"),
        ({"batch_size": 0}, "must be above 0"),
    ],
)
def test_bad_values_are_told(run: Path, folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        evaluate(run, folder, **options)


def test_other_mistakes_are_told(run: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="split='tset' is not known"):
        evaluate(run, folder, split="tset")
    other = write_folder(tmp_path / "other", count=8)
    with pytest.raises(RequestError, match="has no splits: leave --split out"):
        evaluate(run, other, split="test")
    with pytest.raises(RequestError, match="there is nothing at nowhere"):
        evaluate("nowhere", folder)
    with pytest.raises(ModelFileError, match="holds no model"):
        evaluate(tmp_path, folder)


def test_a_model_without_a_head_has_no_score(tmp_path: Path, folder: Path) -> None:
    vitral.save_model(vitral.create_model("ViT-Mi/4", image_size=8, num_classes=0), tmp_path / "m")
    with pytest.raises(ModelFileError, match="has no head"):
        evaluate(tmp_path / "m", folder)
