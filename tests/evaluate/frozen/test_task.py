"""What scores of frozen features learn from and are scored on, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.runs import pattern_images
from torch import nn

from vitral.data.datasets import names
from vitral.errors import DataError, RequestError
from vitral.evaluate.frozen.task import open_model, open_task


def write(path: Path, splits: list[str], **changes: Any) -> Path:
    images, labels = pattern_images(len(splits))
    arrays = {"images": images, "labels": labels, "split": np.array(splits)} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_validation_images_take_part_only_where_they_choose(patterns: Path) -> None:
    plain = open_task(patterns, channels=1)
    assert (len(plain.train), plain.validation, len(plain.test)) == (80, None, 20)
    assert (plain.name, plain.split, plain.published) == ("patterns", "test", None)
    chosen = open_task(patterns, channels=1, with_validation=True)
    assert chosen.validation is not None
    assert (len(chosen.train), len(chosen.validation)) == (80, 20)
    other = open_task(patterns, channels=1, with_validation=True, split="validation")
    assert (other.split, len(other.test), other.validation) == ("validation", 20, None)


def test_validation_is_scored_where_there_is_no_test(tmp_path: Path) -> None:
    data = write(tmp_path / "d.npz", ["train"] * 20 + ["validation"] * 12)
    task = open_task(data, channels=1, with_validation=True)
    assert (task.split, len(task.test), task.validation) == ("validation", 12, None)


def test_data_without_splits_is_split_by_content(tmp_path: Path) -> None:
    task = open_task(write(tmp_path / "d.npz", ["x"] * 80, split=None), channels=1)
    assert task.split == "test"
    assert 0 < len(task.test) < 20
    assert not set(task.train.file_ids.tolist()) & set(task.test.file_ids.tolist())


@pytest.mark.parametrize(
    ("splits", "asked", "said"),
    [
        (["train"] * 4, None, "has train images but no test or validation images: classes are"),
        (
            ["validation"] * 8 + ["test"] * 4,
            None,
            "has validation, test images but no train images",
        ),
        (
            ["train"] * 8 + ["test"] * 4,
            "validation",
            "has train, test images but no validation images",
        ),
        (
            ["train"] * 8 + ["test"] * 4,
            "train",
            "split='train' is not known: use one of test, valid",
        ),
    ],
)
def test_data_without_a_split_that_is_needed_is_told(
    tmp_path: Path, splits: list[str], asked: str | None, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        open_task(write(tmp_path / "d.npz", splits), channels=1, split=asked)


def test_several_labels_an_image_are_refused(tmp_path: Path) -> None:
    marks = np.eye(4, dtype=np.uint8)[np.arange(12) % 4]
    data = write(tmp_path / "d.npz", ["train", "test"] * 6, labels=marks)
    with pytest.raises(DataError, match="several labels an image, which scores of frozen"):
        open_task(data, channels=1)


def with_copy(path: Path, *, of: int, at: int) -> Path:
    images, _ = pattern_images(40)
    images[at] = images[of]
    splits = ["train"] * 20 + ["validation"] * 8 + ["test"] * 12
    labels = np.arange(40) % 4
    labels[at] = labels[of]
    return write(path, splits, images=images, labels=labels)


def test_a_test_image_that_is_learnt_from_is_refused(tmp_path: Path) -> None:
    data = with_copy(tmp_path / "d.npz", of=2, at=30)
    with pytest.raises(DataError, match="1 of 12 test images of .* are training images too"):
        open_task(data, channels=1)


def test_a_copy_in_validation_counts_where_validation_takes_part(tmp_path: Path) -> None:
    data = with_copy(tmp_path / "d.npz", of=22, at=30)
    assert open_task(data, channels=1)
    with pytest.raises(DataError, match="are training images too"):
        open_task(data, channels=1, with_validation=True)


def test_the_splits_of_a_published_set_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_copy(tmp_path / "d.npz", of=2, at=30)
    monkeypatch.setitem(names.BUILTIN, "fashion-mnist", data)
    task = open_task("fashion-mnist", channels=1)
    assert task.published == "fashion-mnist"
    assert "1 of 12 test images are images to learn from too" in task.notes[-1]


def test_damaged_images_of_the_scored_split_are_counted(tmp_path: Path) -> None:
    images, labels = pattern_images(40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / ("train", "test")[number % 3 == 0] / "abcd"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "test" / "a" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert open_task(tmp_path, channels=1).num_damaged == 1


def test_a_module_without_features_is_refused() -> None:
    with pytest.raises(
        RequestError, match="a model of type Linear: give a path, a name, or a model of"
    ):
        open_model(nn.Linear(2, 2), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="batch_size=0 must be above 0"):
        open_model("nowhere", batch_size=0)
