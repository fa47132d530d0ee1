"""Data without classes opens where none are needed, and only there."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.runs import pattern_images

from vitral.data.dataset import open_dataset
from vitral.data.examples import Examples
from vitral.data.report import data_report, describe_report
from vitral.errors import DataError


def fill(root: Path, names: list[str]) -> Path:
    """Write pictures of their own contents below a folder."""
    images, _ = pattern_images(len(names), side=12)
    for name, image in zip(names, images, strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


def names_of(examples: Examples) -> set[str]:
    return {examples.name(index) for index in range(len(examples))}


FLAT = [f"{number}.png" for number in range(20)]
DEEP = [f"{number % 3}/{number % 2}/{number}.png" for number in range(18)]


@pytest.mark.parametrize("names", [FLAT, DEEP, FLAT[:7] + DEEP])
def test_a_folder_of_pictures_opens_whatever_its_folders(names: list[str], tmp_path: Path) -> None:
    data = open_dataset(fill(tmp_path / "p", names), label=False)
    found = data.everything()
    assert sorted(found.name(index) for index in range(len(found))) == sorted(names)
    assert data.classes == () and not data.is_multi_label
    assert (found.labels == -1).all()
    assert data.splits.keys() == {"train", "validation", "test"}


def test_its_split_is_by_content_as_ever(tmp_path: Path) -> None:
    names = [f"{'ab'[number % 2]}/{number}.png" for number in range(40)]
    root = fill(tmp_path / "p", names)
    without, known = open_dataset(root, label=False), open_dataset(root)
    moved = {
        part.name(i)
        for split, part in known.splits.items()
        for i in range(len(part))
        if part.name(i) not in names_of(without.splits[split])
    }
    assert len(moved) <= len(known.classes)  # a class without a test image gets one


def test_hidden_files_and_what_is_no_image_are_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path / "p", [*FLAT, ".hidden/1.png"])
    (root / "notes.txt").write_text("none")
    data = open_dataset(root, label=False)
    assert len(data.everything()) == len(FLAT)
    assert {item.reason for item in data.skipped} == {"in a hidden folder", "not an image"}


@pytest.mark.parametrize("inner", ["", "deep/"])
def test_split_folders_are_splits(inner: str, tmp_path: Path) -> None:
    names = [f"{split}/{inner}{n}.png" for split in ("train", "val") for n in range(6)]
    data = open_dataset(fill(tmp_path / "p", names), label=False)
    assert {split: len(part) for split, part in data.splits.items()} == {
        "train": 6, "validation": 6,
    }  # fmt: skip


def test_other_sources_open_without_their_classes(tmp_path: Path) -> None:
    images, labels = pattern_images(20)
    np.savez(tmp_path / "bare.npz", images=images)
    np.savez(tmp_path / "named.npz", images=images, labels=labels)
    folder = fill(tmp_path / "p", FLAT)
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for name in FLAT:
            archive.write(folder / name, name)
    for source in ("bare.npz", "named.npz", "flat.zip"):
        data = open_dataset(tmp_path / source, label=False)
        assert len(data.everything()) == 20 and data.classes == ()
    assert len(open_dataset(list(images), label=False).everything()) == 20
    builtin = open_dataset("fashion-mnist", label=False)
    assert builtin.classes == () and (builtin.everything().labels == -1).all()


def test_where_classes_are_needed_it_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        open_dataset(fill(tmp_path / "p", FLAT))


def test_its_report_speaks_of_no_classes(tmp_path: Path) -> None:
    data = open_dataset(fill(tmp_path / "p", FLAT), label=False)
    report = data_report(data, name="p")
    assert (report["classes"], report["labels"]) == ([], "none")
    lines = describe_report(report)
    assert lines[0].startswith("data: p: no classes, ")
    assert not any("class" in line for line in lines[1:])


@pytest.mark.usefixtures("with_report")
def test_a_run_without_classes_writes_no_label(tmp_path: Path) -> None:
    from support.example_objectives import COMMON, Masked

    import vitral

    settings: dict[str, Any] = COMMON | {"model.in_channels": 1, "evaluation.keep_best": False}
    result = vitral.train(
        "ViT-Mi/4", fill(tmp_path / "p", FLAT), objective=Masked, steps=2, batch_size=8,
        output=tmp_path / "run", quiet=True, settings=settings,
    )  # fmt: skip
    rows = (result.path / "splits.csv").read_text().splitlines()
    assert rows[0] == "path,split,label" and all(row.endswith(",") for row in rows[1:])
    assert result.summary["metric"] == "loss"
    page = (result.path / "report.html").read_text()
    assert "test loss, smaller is better" in page or "validation loss, smaller is better" in page
    for absent in ("Calibration", "most confident mistakes"):
        assert absent not in page
