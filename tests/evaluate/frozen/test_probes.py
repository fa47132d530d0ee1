"""Linear probe of a model on a task."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import vitral
from vitral.errors import DataError, RequestError
from vitral.evaluate.arrays import Features
from vitral.evaluate.features import extract_features
from vitral.evaluate.frozen import probes as frozen_probe
from vitral.evaluate.frozen.controls import SplitFeatures, untrained
from vitral.evaluate.frozen.probes import Vote, score_knn, score_probe
from vitral.evaluate.frozen.task import FrozenTask, open_model, open_task
from vitral.models.model import Model


@pytest.mark.parametrize("with_validation", [True, False])
def test_the_row_is_the_probe_of_the_extracted_features(
    model: Model, patterns: Path, with_validation: bool
) -> None:
    task = open_task(patterns, channels=1, with_validation=with_validation)
    result = score_probe(open_model(model, device="cpu", cache=False), task)
    train, test, validation = (
        extract_features(model, part, preprocessing=model.preprocessing, device=torch.device("cpu"))
        for part in (task.train, task.test, task.validation or task.test)
    )
    wanted = vitral.evaluate.linear_probe(
        train.values, train.labels, test.values, test.labels, num_classes=4,
        validation=(validation.values, validation.labels) if with_validation else None,
    )  # fmt: skip
    [row] = result.rows
    assert (row.value, row.settings["chosen"]["l2"]) == (wanted.accuracy, wanted.l2)
    assert (row.settings["l2_chosen_on"] == "validation") == with_validation
    shares = wanted.probabilities[np.arange(20), test.labels]
    assert result.loss == pytest.approx(-np.log(shares).mean(), rel=1e-6)
    assert set(row.controls) == {
        "pixels", "random_weights", "shuffled_labels", "majority", "chance",
    }  # fmt: skip
    fresh = score_probe(open_model(untrained(model), device="cpu", cache=False), task)
    assert row.controls["random_weights"] == fresh.rows[0].value
    assert row.controls["pixels"] > 0.8
    assert row.controls["shuffled_labels"] < 0.7
    assert not result.notes


def test_controls_can_be_left_out(model: Model, patterns: Path) -> None:
    task = open_task(patterns, channels=1)
    [row] = score_probe(open_model(model, device="cpu"), task, controls=False).rows
    assert set(row.controls) == {"majority", "chance"}


def test_a_class_without_training_images_is_told(model: Model, patterns: Path) -> None:
    task = open_task(patterns, channels=1)
    few = dataclasses.replace(task, train=task.train.select(np.flatnonzero(task.train.labels > 1)))
    with pytest.raises(
        DataError, match=r"class 'a' has no training image in .* \(nor have 1 more\)"
    ):
        score_probe(open_model(model, device="cpu"), few)


def some(labels: list[int]) -> Features:
    array = np.array(labels)
    return Features(array[:, None].astype(np.float32), array, np.arange(len(array)), {})


def test_shuffling_moves_labels_to_learn_from_alone() -> None:
    parts = SplitFeatures(some([0] * 8), some([1] * 4), some([0, 1]))
    other = parts.shuffled(np.random.default_rng(0))
    assert other.validation is not None
    mixed = [*other.train.labels.tolist(), *other.validation.labels.tolist()]
    assert sorted(mixed) == [0] * 8 + [1] * 4
    assert mixed != [0] * 8 + [1] * 4
    assert other.test is parts.test
    assert np.array_equal(other.train.values, parts.train.values)


def test_a_leak_of_the_test_labels_is_said(
    model: Model, patterns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that is given the test rows scores with shuffled labels too."""
    whole = frozen_probe.fit

    def leaking(parts: SplitFeatures, task: FrozenTask, *, l2: float | None = None) -> object:
        return whole(SplitFeatures(parts.test, None, parts.test), task, l2=l2)

    monkeypatch.setattr(frozen_probe, "fit", leaking)
    task = open_task(patterns, channels=1)
    frozen = open_model(model, device="cpu", cache=False)
    [note] = score_probe(frozen, task).notes
    assert note.startswith("warning: learnt from shuffled labels")


@pytest.fixture
def task(patterns: Path) -> FrozenTask:
    return open_task(patterns, channels=1)


def features(model: Model, task: FrozenTask) -> tuple[Features, Features]:
    train, test = (
        extract_features(model, part, preprocessing=model.preprocessing, device=torch.device("cpu"))
        for part in (task.train, task.test)
    )
    return train, test


@pytest.mark.parametrize("vote", [None, Vote(k=3), Vote(k=7, temperature=0.5)])
def test_the_row_is_the_vote_over_the_extracted_features(
    model: Model, task: FrozenTask, vote: Vote | None
) -> None:
    result = score_knn(open_model(model, device="cpu", cache=False), task, vote=vote)
    [row] = result.rows
    train, test = features(model, task)
    how = vote or Vote(20, 0.07)
    found = vitral.evaluate.knn(
        train.values, train.labels, test.values, test.labels, num_classes=4, k=how.k,
        temperature=how.temperature,
    )  # fmt: skip
    assert row.value == found.accuracy
    assert (row.settings["k"], row.settings["temperature"]) == (how.k, how.temperature)
    assert "chosen" not in row.settings
    fresh = score_knn(open_model(untrained(model), device="cpu", cache=False), task, vote=vote)
    assert row.controls["random_weights"] == fresh.rows[0].value
    assert row.controls["pixels"] > 0.8
    assert row.controls["shuffled_labels"] < 0.7
    assert not result.notes


def test_k_and_temperature_can_be_chosen(model: Model, task: FrozenTask) -> None:
    [row] = score_knn(open_model(model, device="cpu"), task, choose=True).rows
    train, test = features(model, task)
    chosen = vitral.evaluate.choose_knn(train.values, train.labels, num_classes=4)
    assert row.settings["chosen"] == {"k": chosen.k, "temperature": chosen.temperature}
    assert row.settings["chosen_by"] == "leaving one out"
    found = vitral.evaluate.knn(
        train.values, train.labels, test.values, test.labels, num_classes=4, k=chosen.k,
        temperature=chosen.temperature,
    )  # fmt: skip
    assert row.value == found.accuracy
    assert row.interval is not None
    assert np.mean(row.interval) == pytest.approx(row.value, abs=0.1)


def test_settings_that_exclude_each_other_are_told(model: Model, task: FrozenTask) -> None:
    frozen = open_model(model, device="cpu")
    with pytest.raises(RequestError, match=r"k=3, temperature=0.07 and choose both say how"):
        score_knn(frozen, task, vote=Vote(k=3), choose=True)
    with pytest.raises(RequestError, match="k=81, but 80 training rows can vote"):
        score_knn(frozen, task, vote=Vote(k=81))
