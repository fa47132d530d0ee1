import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vitral
from vitral.data.dataset import open_dataset
from vitral.data.decode import decode_image
from vitral.errors import DataError, RequestError, VitralError
from vitral.evaluate import arrays
from vitral.evaluate.arrays import Standardizer, moments, principal_axes, smaller_gram

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SCORES: dict[str, Callable[..., Any]] = {
    "fewshot": functools.partial(vitral.evaluate.fewshot, num_classes=3),
    "linear_probe": functools.partial(vitral.evaluate.linear_probe, num_classes=3, l2_grid=(1.0,)),
    "knn": functools.partial(vitral.evaluate.knn, num_classes=3, k=5),
}
every_score = pytest.mark.parametrize("name", SCORES)


def some_arrays() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    train, test = np.arange(30) % 3, np.arange(12) % 3
    return {
        "train_features": np.eye(3, 4)[train] + generator.normal(size=(30, 4)),
        "train_labels": train,
        "test_features": np.eye(3, 4)[test] + generator.normal(size=(12, 4)),
        "test_labels": test,
    }


def with_row(name: str, row: int, value: float) -> dict[str, Any]:
    changed = some_arrays()[name].copy()
    changed[row] = value
    return {name: changed}


MISTAKES: list[tuple[dict[str, Any], type[VitralError], str]] = [
    (with_row("train_features", 7, np.nan), DataError, r"train_features\[7\] has NaN or infinite"),
    (with_row("test_features", 3, -np.inf), DataError, r"test_features\[3\] has NaN .* float32"),
    ({"train_features": np.ones((30, 4), int)}, RequestError, "train_features is of type int64"),
    ({"test_features": torch.ones(12, 4).long()}, RequestError, "type torch.int64: give floating"),
    ({"train_features": np.ones(30)}, RequestError, r"train_features has the shape \(30,\): give"),
    ({"train_features": np.ones((0, 4))}, RequestError, "train_features has no rows: give at"),
    (
        {"train_features": np.ones((0, 4)), "train_labels": []},
        RequestError,
        "train_features has no rows",
    ),
    ({"test_features": np.ones((12, 5))}, RequestError, "4 columns, test_features 5: take both"),
    ({"test_labels": np.zeros(11, int)}, RequestError, "12 rows, test_labels 11: give a label"),
    (
        {"train_labels": np.zeros((30, 3), int)},
        RequestError,
        r"train_labels has the shape \(30, 3\), several classes a row: this score is for one class",
    ),
    ({"test_labels": np.zeros((2, 3, 2), int)}, RequestError, "give one class a row"),
    ({"train_labels": np.zeros(30)}, RequestError, "train_labels is of type float64: give whole"),
    (
        with_row("train_labels", 4, 3),
        DataError,
        r"train_labels\[4\]=3: classes are numbered from 0..2 \(num_classes=3\)",
    ),
    (with_row("test_labels", 5, -1), DataError, r"test_labels\[5\]=-1: classes are numbered"),
    ({"num_classes": 0}, RequestError, "num_classes=0 must be 1 or more"),
]


@every_score
@pytest.mark.parametrize(("changed", "kind", "message"), MISTAKES)
def test_mistakes_in_arrays_are_named(
    name: str, changed: dict[str, Any], kind: type[VitralError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        SCORES[name](**(some_arrays() | changed))


@pytest.mark.parametrize("name", ["fewshot", "linear_probe"])
def test_a_class_without_a_row_to_learn_from_is_an_error(name: str) -> None:
    given = some_arrays()
    given["train_labels"] = np.where(given["train_labels"] == 1, 2, given["train_labels"])
    with pytest.raises(DataError, match="class 1 has no row in train_labels: give at least one"):
        SCORES[name](**given)
    with pytest.raises(DataError, match=r"class 1 has no row in train_labels \(nor have 2 more\)"):
        SCORES[name](**given, num_classes=5)


@every_score
@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy,
        np.asfortranarray,
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: np.ascontiguousarray(array[::-1])[::-1],
        lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
        lambda array: torch.from_numpy(array).requires_grad_(array.dtype.kind == "f"),
    ],
    ids=["tensor", "columns first", "big-endian", "backwards", "read-only", "with gradient"],
)
def test_arrays_of_any_form_give_the_same(name: str, form: Callable[[np.ndarray], Any]) -> None:
    given = some_arrays()
    plain = SCORES[name](**given)
    other = SCORES[name](**{part: form(array) for part, array in given.items()})
    assert plain.predictions.dtype == np.int64
    assert plain.accuracy == (plain.predictions == given["test_labels"]).mean()
    np.testing.assert_array_equal(other.predictions, plain.predictions)


@every_score
def test_the_arrays_themselves_are_left_as_they_are(name: str) -> None:
    given = some_arrays()
    SCORES[name](**given)
    for part, array in some_arrays().items():
        np.testing.assert_array_equal(given[part], array)


@every_score
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, np.longdouble])
def test_features_of_any_float_type_are_taken(name: str, kind: Any) -> None:
    given = some_arrays()
    for part in ("train_features", "test_features"):  # all types hold such numbers exactly
        given[part] = np.round(given[part] * 8) / 8
    plain = SCORES[name](**given)
    for part in ("train_features", "test_features"):
        is_torch = isinstance(kind, torch.dtype)
        array = given[part]
        given[part] = torch.from_numpy(array).to(kind) if is_torch else array.astype(kind)
    np.testing.assert_array_equal(SCORES[name](**given).predictions, plain.predictions)


@every_score
def test_nothing_depends_on_how_rows_are_divided(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SCORES[name](**some_arrays())
    monkeypatch.setattr(arrays, "_VALUES_AT_ONCE", 16)
    np.testing.assert_array_equal(SCORES[name](**some_arrays()).predictions, whole.predictions)
    with pytest.raises(DataError, match=r"train_features\[29\]"):
        SCORES[name](**(some_arrays() | with_row("train_features", 29, np.nan)))


@pytest.fixture(scope="module")
def small_photos(shared: Path) -> Arrays:
    """Photos of seven kinds of land, as 6 x 6 colours and their spread."""
    data = open_dataset(shared / "data" / "rsscn7")
    parts: list[np.ndarray] = []
    for split in ("train", "test"):
        examples = data.splits[split]
        rows = np.arange(0, len(examples), max(1, len(examples) // 140))
        pixels = [decode_image(bytes(examples.read(row)), channels=3) for row in rows]
        small = [np.asarray(Image.fromarray(image).resize((6, 6))) for image in pixels]
        spread = [image.std(axis=(0, 1)) for image in pixels]
        features = np.concatenate([np.reshape(small, (len(rows), -1)), spread], axis=1)
        parts += [features.astype(np.float32), examples.labels[rows]]
    return parts[0], parts[1], parts[2], parts[3]


@every_score
def test_photographs_are_told_apart_by_their_colours(name: str, small_photos: Arrays) -> None:
    found = SCORES[name](*small_photos, num_classes=7)
    majority = np.bincount(small_photos[3]).max() / len(small_photos[3])
    assert found.accuracy > majority + 0.15


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_score
def test_tensors_on_a_gpu_give_the_same(name: str) -> None:
    given = some_arrays()
    there = {part: torch.from_numpy(array).cuda() for part, array in given.items()}
    plain, other = SCORES[name](**given), SCORES[name](**there)
    np.testing.assert_array_equal(other.predictions, plain.predictions)


def test_importing_vitral_alone_is_enough_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, vitral; evaluate = vitral.evaluate; print('torch' in sys.modules); "
        "print(vitral.evaluate.fewshot.__name__, 'knn' in dir(vitral.evaluate))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "fewshot", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'few'"):
        _ = vitral.evaluate.few


def some_rows(count: int, width: int, rank: int) -> np.ndarray:
    generator = np.random.default_rng(count + 31 * width + 97 * rank)
    return generator.normal(size=(count, rank)) @ generator.normal(size=(rank, width))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_the_axes_rebuild_the_products_of_the_features(count: int, width: int, rank: int) -> None:
    features = some_rows(count, width, rank) + 5
    mean, std = moments(torch.from_numpy(features))
    standardizer = Standardizer(mean, std + 1e-5)
    axes, squares = (
        part.numpy() for part in principal_axes(torch.from_numpy(features), standardizer)
    )
    rows = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-5)
    np.testing.assert_allclose(axes * squares @ axes.T, rows.T @ rows, atol=1e-8 * (1 + count))
    np.testing.assert_allclose(axes.T @ axes, np.eye(len(squares)), atol=1e-6)
    assert len(squares) <= min(count - 1, width, rank)


def test_moments_and_products_equal_numpys_however_rows_are_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrays, "_VALUES_AT_ONCE", 20)
    features = some_rows(23, 5, 5) + 1e3
    mean, std = moments(torch.from_numpy(features))
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, features.std(axis=0), rtol=1e-10)
    gram = smaller_gram(torch.from_numpy(features), Standardizer(mean, std))
    rows = (features - features.mean(axis=0)) / features.std(axis=0)
    np.testing.assert_allclose(gram, rows.T @ rows, atol=1e-8)


def test_features_that_do_not_vary_have_no_axes() -> None:
    constant = torch.full((4, 3), 0.1)
    mean, std = moments(constant)
    axes, squares = principal_axes(constant, Standardizer(mean, std + 1e-5))
    assert axes.shape == (3, 0)
    assert squares.shape == (0,)
