"""Nearest neighbours of a model on a task."""

from pathlib import Path

import numpy as np
import pytest
import torch

import vitral
from vitral.errors import RequestError
from vitral.evaluate.features import Features, extract_features
from vitral.evaluate.frozen import FrozenTask, open_model, open_task
from vitral.evaluate.frozen_controls import untrained
from vitral.evaluate.frozen_knn import Vote, score_knn
from vitral.models.model import Model


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
