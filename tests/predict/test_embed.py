"""Features of images in files, from Python and through the command line."""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import pattern_images

import vitral
from vitral.cli.main import main
from vitral.data.dataset import open_dataset
from vitral.errors import ModelFileError, RequestError
from vitral.evaluate.features import extract_features
from vitral.models.model import Model
from vitral.predict import embed as embed_module
from vitral.predict.embed import embed, write_features
from vitral.predict.runner import open_runner


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return vitral.create_model("ViT-Mi/16", image_size=64, num_classes=0)


@pytest.fixture(scope="module")
def model_path(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "trunk"
    vitral.save_model(model, path)
    return path


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs in two folders, and a file that is none."""
    root = tmp_path_factory.mktemp("embed") / "photos"
    with tarfile.open(shared / "data/imagenet_sample/images.tar") as tar:
        members = [member for member in tar if member.isfile()][:10]
        for number, member in enumerate(members):
            path = root / "ab"[number % 2] / Path(member.name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    (root / "a" / "notes.txt").write_text("text")
    return root


def read(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the paths, features and errors of a file that was written."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return file["paths"].tolist(), file["features"], file["errors"].tolist()
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: extra `arrow`")
    columns = parquet.read_table(path).to_pydict()
    features = np.array(columns["features"], np.float32)
    return columns["path"], features, columns["error"]


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_the_features_of_photographs_are_those_of_an_extraction(
    model: Model, model_path: Path, photos: Path, tmp_path: Path, ending: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / f"f.{ending}"
    tokens = ["embed", str(model_path), str(photos), "--output", str(output)]
    assert main([*tokens, "--precision", "float32", "--batch-size", "4", "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert "1 file is no image and was left out" in captured.err
    paths, features, errors = read(output)
    assert printed == {
        "paths": paths, "output": str(output), "num_images": 10, "num_errors": 0,
        "dimension": 128, "precision": "float32",
    }  # fmt: skip
    assert (features.shape, features.dtype, errors) == ((10, 128), np.float32, [""] * 10)
    examples = open_dataset(photos).everything()
    wanted = extract_features(
        model, examples, preprocessing=model.preprocessing, batch_size=4, device=torch.device("cpu")
    )
    by_path = {str(photos / examples.name(i)): row for i, row in enumerate(wanted.values)}
    assert sorted(by_path) == sorted(paths)
    np.testing.assert_allclose(features, np.stack([by_path[path] for path in paths]), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    assert main(tokens) == 0
    assert capsys.readouterr().out == f"{output}: 10 images, 128 features each\n"


@pytest.fixture
def mixed(tmp_path: Path) -> list[str]:
    """Files of which every third is no image."""
    arrays, _ = pattern_images(9, side=20)
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for number, (path, array) in enumerate(zip(paths, arrays, strict=True)):
        Image.fromarray(array).save(path)
        if number % 3 == 1:
            path.write_bytes(b"no image")
    return [str(path) for path in paths]


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_an_unreadable_image_keeps_its_row_and_is_counted(
    model_path: Path, mixed: list[str], tmp_path: Path, ending: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / f"f.{ending}"
    assert main(["embed", str(model_path), *mixed, "--output", str(output), "-b", "2"]) == 0
    printed = capsys.readouterr().err
    assert f"{mixed[1]}: not an image" in printed
    assert "3 of 9 images could not be read: their features are NaN" in printed
    paths, features, errors = read(output)
    assert paths == mixed
    assert errors == ["", "not an image", ""] * 3
    assert np.isnan(features).all(axis=1).tolist() == [False, True, False] * 3
    assert np.isfinite(features[::3]).all()


def test_parquet_is_written_in_groups_as_the_batches_come(
    model: Model, mixed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: extra `arrow`")
    monkeypatch.setattr(embed_module, "_ROWS_A_GROUP", 4)
    batches = list(embed(open_runner(model), mixed, batch_size=2))
    taken: list[int] = []

    def coming() -> Any:
        for number, batch in enumerate(batches):
            taken.append(number)
            yield batch

    write_features(coming(), tmp_path / "f.parquet", dimension=128)
    file = parquet.ParquetFile(tmp_path / "f.parquet")
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [4, 4, 1]
    assert file.schema_arrow.field("features").type.list_size == 128
    assert taken == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_name_that_is_no_text_and_an_interruption(
    model: Model, mixed: list[str], tmp_path: Path, ending: str
) -> None:
    odd = str(tmp_path / "b\udcff.png")
    Path(mixed[0]).rename(odd)
    path = tmp_path / f"f.{ending}"
    whole = list(embed(open_runner(model), [odd], batch_size=2))
    write_features(whole, path, dimension=128)
    shown = {"npz": odd, "parquet": str(tmp_path / "b\\udcff.png")}
    assert read(path)[0] == [shown[ending]]

    def broken() -> Any:
        yield whole[0]
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_features(broken(), path, dimension=128)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".aside*"))


def test_arrays_and_pictures_are_taken_too(model: Model, mixed: list[str]) -> None:
    array = np.asarray(Image.open(mixed[0]))
    given = [mixed[0], Path(mixed[0]), array, Image.fromarray(array)]
    [batch] = embed(open_runner(model), given)
    assert batch.paths == [mixed[0], mixed[0], "2", "3"]
    np.testing.assert_allclose(batch.features, batch.features[:1].repeat(4, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["--output", "f.csv"], "--output f.csv ends in neither of .npz, .parquet: use one"),
        (["--output", "nowhere/f.npz"], "--output nowhere/f.npz: there is no such folder"),
        (["--output", "f.npz", "--batch-size", "0"], "batch_size=0 must be 1 or more"),
        ([], "the following arguments are required: --output"),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(
    tokens: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", "no model", "no image", *tokens]) == 2
    assert said in capsys.readouterr().err


def test_no_images_are_an_error_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("text")
    assert main(["embed", "m", str(tmp_path), "--output", str(tmp_path / "f.npz")]) == 3
    assert f"there are no images in {tmp_path}" in capsys.readouterr().err


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["embed", "m", "x", "--output", str(tmp_path / "f.parquet")]) == 2
    assert "pip install 'vitral[arrow]'" in capsys.readouterr().err


def test_features_that_are_not_finite_leave_no_file(
    model: Model, mixed: list[str], tmp_path: Path
) -> None:
    spoilt = vitral.create_model("ViT-Mi/16", image_size=64, num_classes=0)
    with torch.no_grad():
        spoilt.norm.bias.fill_(float("nan"))
    batches = embed(open_runner(spoilt), mixed[1:], batch_size=2)
    # The first of these is no image, so the second is to blame.
    with pytest.raises(ModelFileError, match=f"the features of {mixed[2]} are not finite but nan"):
        write_features(batches, tmp_path / "f.npz", dimension=128)
    assert not (tmp_path / "f.npz").exists()
    with pytest.raises(RequestError, match="batch_size=0 must be 1 or more"):
        next(embed(open_runner(model), mixed, batch_size=0))


def test_another_preprocessing_is_asked_for_and_said(
    model_path: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for number, change in enumerate([[], ["--set", "preprocessing.crop_share=0.5"]]):
        output = tmp_path / f"{number}.npz"
        assert main(["embed", str(model_path), str(photos), "--output", str(output), *change]) == 0
        found.append(read(output)[1])
    assert "crop_share=0.5 instead of 1.0" in capsys.readouterr().err
    assert np.abs(found[0] - found[1]).max() > 1e-3
