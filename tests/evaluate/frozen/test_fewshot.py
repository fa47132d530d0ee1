"""Few-shot scores of a model on a task: protocol, rows and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vitral
from vitral.config.preprocessing import Preprocessing, default_preprocessing
from vitral.data.device_transforms import normalise
from vitral.data.order import tfds_order
from vitral.data.transforms import preprocess
from vitral.errors import DataError, RequestError
from vitral.evaluate.features import extract_features
from vitral.evaluate.frozen import fewshot as frozen_fewshot
from vitral.evaluate.frozen.controls import untrained
from vitral.evaluate.frozen.fewshot import (
    L2_GRID,
    choose_shots,
    draw_all,
    fewshot_preprocessing,
    score_fewshot,
    support_pool,
)
from vitral.evaluate.frozen.task import FrozenModel, FrozenResult, FrozenTask, open_model, open_task
from vitral.models.model import Model
from vitral.models.weights.provenance import weights_hash

IMAGES = ("n01644373_tree_frog", "n01756291_sidewinder", "n02692877_airship")


@pytest.fixture
def task(patterns: Path) -> FrozenTask:
    return open_task(patterns, channels=1)


def frozen(model: Model, **changes: Any) -> FrozenModel:
    return dataclasses.replace(open_model(model, device="cpu", cache=False), **changes)


def accuracies(result: FrozenResult) -> list[float]:
    return [row.value for row in result.rows]


@pytest.mark.parametrize("image", IMAGES)
def test_images_are_prepared_as_by_big_vision(shared: Path, image: str) -> None:
    how = fewshot_preprocessing(default_preprocessing((224, 224), channels=3))
    with np.load(shared / f"reference/preprocess_{image}.npz") as reference:
        pixels = preprocess(reference["decoded_tf_uint8"], how)
        wanted = reference["big_vision_resize256_central_crop224"]
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    levels = np.abs(normalise(images, how)[0].permute(1, 2, 0).numpy() - wanted) * 127.5
    assert levels.max() < 1.001
    assert (levels > 0.5).mean() <= 0.03


def test_what_the_weights_say_of_colours_stays() -> None:
    preprocessing = Preprocessing(
        (32, 48), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), resize="shorter"
    )
    changed = fewshot_preprocessing(preprocessing)
    assert (changed.size, changed.mean, changed.std, changed.rounding) == (
        preprocessing.size,
        preprocessing.mean,
        preprocessing.std,
        "truncate",
    )
    deep = dataclasses.replace(preprocessing, levels=(0.0, 4095.0))
    assert fewshot_preprocessing(deep).rounding == "none"


@pytest.mark.parametrize("l2", [2**10, 1.0])
def test_rows_are_the_scores_of_the_extracted_features(
    model: Model, task: FrozenTask, l2: float
) -> None:
    result = score_fewshot(frozen(model), task, shots=[5, 1], num_seeds=2, l2=l2, controls=False)
    how = fewshot_preprocessing(model.preprocessing)
    train, test = (
        extract_features(model, part, preprocessing=how, device=torch.device("cpu"))
        for part in (task.train, task.test)
    )
    wanted = {}
    for shots in (1, 5):
        for seed in range(2):
            rows = vitral.evaluate.draw_support(train.labels, shots=shots, seed=seed, num_classes=4)
            found = vitral.evaluate.fewshot(
                train.values[rows], train.labels[rows], test.values, test.labels, l2=l2
            )
            wanted[shots, seed] = found.accuracy
    *singles, first, second = result.rows
    assert {(row.settings["shots"], row.seed): row.value for row in singles} == wanted
    assert [(row.settings["shots"], row.seed) for row in (first, second)] == [
        (1, (0, 1)), (5, (0, 1))
    ]  # fmt: skip
    assert first.value == pytest.approx((wanted[1, 0] + wanted[1, 1]) / 2)


def test_a_row_says_everything(model: Model, task: FrozenTask) -> None:
    result = score_fewshot(frozen(model), task, shots=[5], num_seeds=1)
    [row] = result.rows
    assert (row.protocol, row.data, row.split, row.metric) == (
        "fewshot", "patterns", "test", "accuracy"
    )  # fmt: skip
    assert (row.weights, row.precision, row.num_examples) == (weights_hash(model), "float32", 20)
    assert row.interval_over == "images"
    how = fewshot_preprocessing(model.preprocessing)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(how).items()}
    assert row.settings == {
        "l2": 1024.0, "num_classes": 4, "preprocessing": plain, "shots": 5,
    }  # fmt: skip
    assert set(row.controls) == {"pixels", "random_weights", "majority", "chance"}
    assert any("squash to 8 x 8, 0.875 of it cut" in note for note in result.notes)


def test_the_untrained_control_is_the_score_of_the_untrained_model(
    model: Model, task: FrozenTask
) -> None:
    shots = [1, 5]
    rows = score_fewshot(frozen(model), task, shots=shots).rows
    fresh = score_fewshot(frozen(untrained(model)), task, shots=shots, controls=False).rows
    assert [row.controls["random_weights"] for row in rows] == [row.value for row in fresh]
    assert [row.value for row in rows] != [row.value for row in fresh]


def test_kept_features_score_as_fresh_ones(model: Model, task: FrozenTask, tmp_path: Path) -> None:
    fresh = accuracies(score_fewshot(frozen(model), task))
    keeping = frozen(model, cache=tmp_path / "kept")
    first, again = (accuracies(score_fewshot(keeping, task)) for _ in range(2))
    assert fresh == first == again
    assert list((tmp_path / "kept").iterdir())


def test_without_shots_those_are_taken_that_every_class_has(model: Model, task: FrozenTask) -> None:
    rows = score_fewshot(frozen(model), task, num_seeds=1, controls=False).rows
    assert [row.settings["shots"] for row in rows] == [1, 5, 10]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(1, 30))
def test_shots_are_what_the_rarest_class_allows(counts: list[int], asked: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"class{number}" for number in range(len(counts))]
    assert choose_shots(labels, names, shots=None) == [
        shots for shots in (1, 5, 10, 25) if shots <= min(counts)
    ]
    if asked <= min(counts):
        assert choose_shots(labels, names, shots=[asked, 1]) == sorted({1, asked})
        return
    rarest = names[counts.index(min(counts))]
    with pytest.raises(RequestError, match=rf"shots={asked}: class '{rarest}' has {min(counts)} "):
        choose_shots(labels, names, shots=[asked])


@pytest.mark.parametrize(
    ("shots", "said"), [([], "shots is empty: give"), ([0], "shots=0 must be 1 or more")]
)
def test_bad_shots_are_told(shots: list[int], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        choose_shots(np.arange(4), list("abcd"), shots=shots)


def test_a_class_without_training_images_is_told() -> None:
    with pytest.raises(DataError, match="class 'c' has no training image, so a support would"):
        choose_shots(np.array([0, 1, 3]), list("abcd"), shots=None)


@pytest.mark.parametrize("with_validation", [True, False])
def test_l2_is_chosen_without_a_look_at_the_test(
    model: Model, patterns: Path, with_validation: bool
) -> None:
    task = open_task(patterns, channels=1, with_validation=with_validation)
    found = []
    for turn in (0, 1):
        labels = np.roll(task.test.labels, turn)
        other = dataclasses.replace(task, test=dataclasses.replace(task.test, labels=labels))
        rows = score_fewshot(frozen(model), other, shots=[5], l2="sweep", controls=False).rows
        found.append([row.settings["chosen"]["l2"] for row in rows[:3]])
        on = rows[0].settings["l2_chosen_on"]
        assert (on == "validation") == with_validation
        assert (rows[0].settings["l2"], "chosen" in rows[3].settings) == ("sweep", False)
    assert found[0] == found[1]
    assert set(found[0]) <= set(L2_GRID)


def test_a_swept_score_is_that_of_the_chosen_l2(model: Model, task: FrozenTask) -> None:
    rows = score_fewshot(
        frozen(model), task, shots=[1], num_seeds=1, l2="sweep", controls=False
    ).rows
    l2 = rows[0].settings["chosen"]["l2"]
    fixed = score_fewshot(frozen(model), task, shots=[1], num_seeds=1, l2=l2, controls=False)
    assert fixed.rows[0].value == rows[0].value


def test_what_chooses_l2_is_in_no_support_of_its_seed(task: FrozenTask) -> None:
    draws = draw_all(task, shots=[1, 10], num_seeds=2, sweep=True)
    for draw in draws:
        same = [other.support for other in draws if other.seed == draw.seed]
        assert not set(draw.held.tolist()) & set(np.concatenate(same).tolist())
        assert sorted(set(task.train.labels[draw.held].tolist())) == [0, 1, 2, 3]
        assert np.bincount(task.train.labels[draw.held]).max() <= 10


def test_a_sweep_needs_images_to_choose_on(model: Model, task: FrozenTask) -> None:
    with pytest.raises(RequestError, match="shots=20 takes every training image, so none is left"):
        score_fewshot(frozen(model), task, shots=[20], l2="sweep")


def test_bad_numbers_are_told(model: Model, task: FrozenTask) -> None:
    with pytest.raises(RequestError, match="num_seeds=0 must be above 0"):
        score_fewshot(frozen(model), task, num_seeds=0)
    with pytest.raises(RequestError, match="l2=-1 must be 0 or more"):
        score_fewshot(frozen(model), task, l2=-1)


def test_an_image_of_the_support_that_cant_be_read_is_told(model: Model, photos: Path) -> None:
    task = open_task(photos, channels=1)
    [draw] = draw_all(task, shots=[1], num_seeds=1, sweep=False)
    name = task.train.name(int(draw.support[1]))
    (photos / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{name} can't be read, which is to be learnt from: not"):
        score_fewshot(frozen(model), task, shots=[1], num_seeds=1)


def test_supports_of_imagenet_are_of_its_first_images(
    task: FrozenTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_fewshot, "IMAGENET_POOL", 50)
    assert support_pool(task).tolist() == list(range(80))
    imagenet = dataclasses.replace(task, published="imagenet")
    keys = [task.train.name(index) for index in range(80)]
    pool = support_pool(imagenet)
    assert pool.tolist() == tfds_order("train", keys)[:50].tolist()
    for draw in draw_all(imagenet, shots=[2], num_seeds=2, sweep=False):
        assert set(draw.support.tolist()) <= set(pool.tolist())
