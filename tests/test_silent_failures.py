"""What goes wrong elsewhere without an error, planted here and seen caught.

The rows are those of a survey of public issue threads: data and evaluation failures that give a
wrong result and no message.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitral
from vitral.cli.main import main
from vitral.config.preprocessing import default_preprocessing
from vitral.config.run import AugmentSettings
from vitral.data.dataset import open_dataset
from vitral.data.loader import TrainingBatches
from vitral.errors import DataError
from vitral.evaluate.evaluate import evaluate

HOW = default_preprocessing((16, 16), channels=3)


def write(path: Path, seed: int, *, size: tuple[int, int] = (20, 24), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


def tree(root: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        write(root / name, seed)
    return root


def constant_model(folder: Path, classes: tuple[str, ...], *, answer: int = 0) -> Path:
    """A model that always gives one answer."""
    model = vitral.create_model("ViT-Mi/8", image_size=16, num_classes=len(classes))
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.eye(len(classes))[answer] * 9
    model.classes = classes
    vitral.save_model(model, folder)
    return folder


def test_1_and_2_other_preprocessing_needs_a_setting_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All paths are tested in test_preprocessing_paths.py; here: none can be added unnoticed."""
    model = constant_model(tmp_path / "model", ("a", "b"))
    image = str(write(tmp_path / "x.png", 0))
    assert main(["predict", str(model), image, "--set", "preprocessing.std=1,1,1", "--json"]) == 0
    assert "not the model's own preprocessing" in capsys.readouterr().err


def test_3_a_class_that_a_split_lacks_shifts_no_number(tmp_path: Path) -> None:
    names = [f"train/{c}/{n}.png" for c in ("cat", "dog", "owl") for n in range(3)]
    data = open_dataset(tree(tmp_path, [*names, "val/dog/x.png", "test/owl/y.png"]))
    assert data.classes == ("cat", "dog", "owl")
    assert data.splits["validation"].labels.tolist() == [1]
    assert data.splits["test"].labels.tolist() == [2]
    assert any("has no images of 'cat', 'owl'" in note for note in data.notes)


def test_4_a_hidden_folder_is_no_class(tmp_path: Path) -> None:
    names = [f"{c}/{n}.png" for c in ("cat", "dog") for n in range(8)]
    data = open_dataset(tree(tmp_path, [*names, ".ipynb_checkpoints/0.png"]))
    assert data.classes == ("cat", "dog")
    assert [(skipped.name, skipped.reason) for skipped in data.skipped] == [
        (".ipynb_checkpoints/0.png", "in a hidden folder")
    ]


def test_5_classes_are_compared_by_name_whatever_their_order(tmp_path: Path) -> None:
    names = [f"{c}/{n}.png" for c in ("1", "2", "10") for n in range(6)]
    root = tree(tmp_path / "data", names)
    assert open_dataset(root).classes == ("1", "2", "10")
    # A model whose classes are in text order names the same class all the same.
    model = constant_model(tmp_path / "model", ("1", "10", "2"), answer=1)
    rows = list(evaluate(model, root).rows())
    assert {row["class"] for row in rows} == {"10"}
    assert all((row["label"] == "10") == row["path"].startswith("10/") for row in rows)
    assert evaluate(model, root).summary["accuracy"] == pytest.approx(1 / 3)


def test_6_a_bad_image_is_never_replaced_by_its_neighbour(tmp_path: Path) -> None:
    names = [f"{s}/{c}/{n}.png" for s in ("train", "test") for c in "ab" for n in range(4)]
    root = tree(tmp_path / "data", names)
    (root / "test" / "a" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    model = constant_model(tmp_path / "model", ("a", "b"))
    result = evaluate(model, root)
    rows = {row["path"]: row for row in result.rows()}
    assert len(rows) == 8
    assert rows["test/a/2.png"]["error"]
    assert "class" not in rows["test/a/2.png"]
    assert (result.summary["num_examples"], result.summary["num_skipped"]) == (7, 1)
    predictions = vitral.Predictor(model)([str(root / name) for name in names])
    assert [prediction.path for prediction in predictions] == [str(root / name) for name in names]
    assert [bool(prediction.error) for prediction in predictions].count(True) == 1


def test_7_a_16_bit_ramp_keeps_its_levels(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for number in range(12):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(ramp, number, axis=0)).save(path)
    data = open_dataset(tmp_path)
    how = default_preprocessing((64, 64), channels=3, levels=data.levels(), rounding="none")
    batches = TrainingBatches(
        data.splits["train"], how, AugmentSettings(crop="none"), seed=0, batch_size=4, workers=0
    )
    (step,) = batches.steps(0, 1)
    image = step.micro_batches[0]["image"][0].numpy()
    assert abs(image.mean() - 127.5) < 1
    assert np.unique(np.rint(image)).size == 256


def test_8_exif_alpha_palette_and_cmyk_are_seen_as_in_a_viewer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "a" / "turned.jpg", 0, size=(20, 40), exif=exif)
    (tmp_path / "b").mkdir()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "b" / "clear.png")
    picture = Image.open(write(tmp_path / "a" / "x.png", 1))
    picture.convert("P").save(tmp_path / "b" / "palette.png")
    picture.convert("CMYK").save(tmp_path / "b" / "cmyk.jpg")
    from vitral.data.decode import decode_image

    assert decode_image((tmp_path / "a" / "turned.jpg").read_bytes()).shape == (40, 20, 3)
    assert (decode_image((tmp_path / "b" / "clear.png").read_bytes()) == 255).all()
    main(["data", "check", str(tmp_path), "--json"])
    kinds = {problem["kind"] for problem in json.loads(capsys.readouterr().out)["problems"]}
    assert {"turned", "alpha", "palette", "cmyk"} <= kinds


def test_9_every_file_is_used_or_listed(tmp_path: Path) -> None:
    endings = ["png", "JPG", "bmp", "tif", "webp", "gif"]
    tree(tmp_path, [f"{c}/{n}.{end}" for c in "ab" for n, end in enumerate(endings)])
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "no-ending").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    data = open_dataset(tmp_path)
    used = {part.name(n) for part in data.splits.values() for n in range(len(part))}
    listed = {skipped.name for skipped in data.skipped}
    on_disk = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert used | listed == on_disk
    assert not used & listed
    assert listed == {"a/notes.txt"}


@pytest.mark.parametrize("batch_size", [3, 7, 64])
def test_16_and_17_each_image_is_scored_once_at_any_batch_size(
    tmp_path: Path, batch_size: int
) -> None:
    """On several processes too: tests/training/test_accumulation.py and test_families.py."""
    root = tree(tmp_path / "data", [f"{c}/{n}.png" for c in "abb" for n in range(11)])
    model = constant_model(tmp_path / "model", ("a", "b"), answer=1)
    result = evaluate(model, root, batch_size=batch_size)
    paths = [row["path"] for row in result.rows()]
    assert len(paths) == len(set(paths)) == result.summary["num_examples"] == 22
    assert result.summary["accuracy"] == 0.5


def test_23_random_numbers_differ_between_workers_images_and_epochs(tmp_path: Path) -> None:
    content = io.BytesIO()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(content, "PNG")
    for number in range(40):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())  # the same picture: only its changes can differ
    tree(tmp_path, ["test/a/x.png", "test/b/x.png"])
    data = open_dataset(tmp_path)
    batches = TrainingBatches(
        data.splits["train"], HOW, AugmentSettings(), seed=0, batch_size=8, workers=4
    )
    views = [
        batch["image"][row].numpy().tobytes()
        for step in batches.steps(0, 10)
        for batch in step.micro_batches
        for row in range(8)
    ]
    assert len(views) == 80
    assert len(set(views)) == 80


def test_25_copies_near_copies_and_groups_across_splits_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{s}/{c}/p{n}-{s}.png" for s in ("train", "test") for c in "ab" for n in range(6)]
    root = tree(tmp_path / "data", names)
    (root / "test" / "a" / "leak.png").write_bytes((root / "train/a/p0-train.png").read_bytes())
    smooth = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    photo = smooth.resize((200, 200), Image.Resampling.BICUBIC)
    photo.save(root / "train" / "b" / "photo.png")
    photo.resize((120, 120)).save(root / "test" / "b" / "smaller.jpg", quality=70)
    status = main(["data", "check", str(root), "--group-pattern", r"(p\d+)-", "--json"])
    found = {
        problem["kind"]: problem for problem in json.loads(capsys.readouterr().out)["problems"]
    }
    assert status == 3
    assert found["across_splits"]["count"] == 1
    assert found["near_across_splits"]["items"][0]["files"] == [
        "test/b/smaller.jpg", "train/b/photo.png"
    ]  # fmt: skip
    assert found["groups"]["count"] == 6


def test_a_class_that_training_lacks_is_an_error_not_a_new_number(tmp_path: Path) -> None:
    names = [f"train/{c}/{n}.png" for c in "ab" for n in range(2)]
    with pytest.raises(DataError, match="has class 'c', which the training split does not have"):
        open_dataset(tree(tmp_path, [*names, "test/c/1.png"]))
