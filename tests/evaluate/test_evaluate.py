import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import TINY_MODEL, pattern_images, write_patterns

import vitral
from vitral.cli.main import main
from vitral.errors import DataError, ModelFileError, RequestError
from vitral.evaluate.evaluate import evaluate


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
    original, copied = evaluate(run, folder).summary, evaluate(tmp_path / "copied", folder).summary
    assert (copied["split"], copied["num_examples"]) == ("test", original["num_examples"])
    assert copied["accuracy"] == original["accuracy"]


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


# Published sets


def write_imagenet(root: Path, *, sets: list[list[int]]) -> None:
    """Write as many validation images, with their ReaL labels."""
    images, _ = pattern_images(len(sets))
    (root / "val" / "n0").mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        path = root / "val" / "n0" / f"ILSVRC2012_val_{number:08}.JPEG"
        Image.fromarray(image).convert("RGB").save(path, "PNG")
    (root / "real.json").write_text(json.dumps(sets))


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 1,000 outputs with names of its own, whose answer is always 5, then 6, 7, ..."""
    model = vitral.create_model("ViT-Mi/8", num_classes=1000, image_size=16)
    torch.nn.init.zeros_(model.head.weight)
    ranks = torch.arange(1000, dtype=torch.float32)
    model.head.bias.data = -torch.where(ranks < 5, ranks + 2000, ranks) / 100
    model.classes = tuple(f"word {number}" for number in range(1000))
    path = tmp_path_factory.mktemp("thousand") / "model"
    vitral.save_model(model, path)
    return path


def test_an_answer_is_right_if_it_is_in_the_images_set(thousand: Path, tmp_path: Path) -> None:
    write_imagenet(tmp_path, sets=[[5], [0, 5, 9], [4], [], [7], [8, 1], [900], [3, 2]])
    result = evaluate(thousand, "imagenet-real", directory=tmp_path)
    assert result.summary["num_examples"] == 7  # the one without labels is left out
    assert result.summary["accuracy"] == pytest.approx(2 / 7)
    assert result.summary["top5_accuracy"] == pytest.approx(4 / 7)
    assert result.summary["majority_accuracy"] == pytest.approx(2 / 7)
    assert result.summary["split"] == "test"
    assert result.notes == ["1 images without ReaL labels are left out"]
    rows = list(result.rows())
    assert {row["class"] for row in rows} == {"5"}
    assert rows[1]["label"] == "0|5|9"
    shares = torch.softmax(vitral.load_model(thousand).head.bias.detach().double(), 0)
    sets = [[5], [0, 5, 9], [4], [7], [8, 1], [900], [3, 2]]
    expected = -np.mean([np.log(sum(float(shares[n]) for n in labels)) for labels in sets])
    assert result.summary["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_command_takes_the_folder_of_files(
    thousand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_imagenet(tmp_path, sets=[[5], []])
    assert main(["evaluate", str(thousand), "imagenet-real", "--data-dir", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "accuracy  100.0 %" in captured.out
    assert "note: 1 images without ReaL labels are left out" in captured.err


def test_a_model_without_names_has_its_outputs_in_a_published_sets_order(tmp_path: Path) -> None:
    names = [f"Abyssinian_{n}" for n in range(3)] + [f"beagle_{n}" for n in range(3)]
    rows = "\n".join(f"{name} {1 + name.startswith('b')} 1 1" for name in names)
    (tmp_path / "pets" / "annotations").mkdir(parents=True)
    (tmp_path / "pets" / "images").mkdir()
    for name in ("trainval", "test"):
        (tmp_path / "pets" / "annotations" / f"{name}.txt").write_text(rows)
    for number, name in enumerate(names):
        Image.new("RGB", (16, 16), (number, 0, 9)).save(tmp_path / "pets/images" / f"{name}.jpg")
    model = vitral.create_model("ViT-Mi/8", num_classes=2, image_size=16)
    model.head.bias.data = torch.tensor([0.0, 9.0])
    vitral.save_model(model, tmp_path / "model")
    result = evaluate(tmp_path / "model", "pets", directory=tmp_path)
    assert result.summary["accuracy"] == 0.5
    assert {row["class"] for row in result.rows()} == {"beagle"}
    model.classes = ("dog", "cat")
    vitral.save_model(model, tmp_path / "named")
    with pytest.raises(DataError, match="has class 'Abyssinian', which the model does not know"):
        evaluate(tmp_path / "named", "pets", directory=tmp_path)
