"""The controls beside scores of frozen features, and when a leak is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vitral.config.preprocessing import default_preprocessing
from vitral.errors import DataError
from vitral.evaluate.controls import pixel_features
from vitral.evaluate.frozen.controls import SHUFFLES, free_controls, shuffled_control, untrained
from vitral.evaluate.frozen.task import open_task
from vitral.models.model import Model
from vitral.statistics import binomial_tail

LABELS = np.arange(40) % 4


@given(st.data(), st.integers(1, 300), st.floats(0.001, 1))
def test_the_tail_is_that_of_the_binomial_distribution(
    data: st.DataObject, count: int, share: float
) -> None:
    right = data.draw(st.integers(0, count))
    wanted = stats.binom.sf(right - 1, count, share)
    assert binomial_tail(right, count, share) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("accuracies", "value", "is_leak"),
    [
        ([0.3], 0.3, False),
        ([0.0], 0.0, False),
        ([1.0, 0.2], 0.6, False),  # all images of a class right together, by chance
        ([1.0] * (SHUFFLES - 1) + [0.1], 0.91, False),
        ([1.0] * SHUFFLES, 1.0, True),
        ([0.6] * SHUFFLES, 0.6, True),
    ],
)
def test_a_leak_is_said_where_every_shuffle_scores(
    accuracies: list[float], value: float, is_leak: bool
) -> None:
    left = iter(accuracies)
    found, warning = shuffled_control(lambda _: next(left), LABELS)
    assert found == pytest.approx(value)
    assert bool(warning) == is_leak
    assert next(left, None) is None
    assert not warning or warning.startswith("warning: learnt from shuffled labels, the test sc")


def test_the_first_shuffle_is_that_of_seed_0() -> None:
    seen: list[list[int]] = []

    def accuracy_of(generator: np.random.Generator) -> float:
        seen.append(generator.permutation(8).tolist())
        return 0.0

    shuffled_control(accuracy_of, LABELS)
    assert seen == [np.random.default_rng(0).permutation(8).tolist()]


def test_an_untrained_model_is_that_of_seed_0_and_disturbs_nothing(model: Model) -> None:
    before = torch.get_rng_state()
    fresh = untrained(model)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(0)
    wanted = type(model)(model.config).state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in fresh.state_dict().items())
    assert not fresh.training


def test_majority_and_chance_are_of_the_data(patterns: Path) -> None:
    task = open_task(patterns, channels=1)
    assert free_controls(task, np.array([0, 0, 0, 1])) == {"majority": 0.75, "chance": 0.25}


def test_pixels_stand_for_features(patterns: Path) -> None:
    test = open_task(patterns, channels=1).test
    found = pixel_features(test, preprocessing=default_preprocessing((8, 8), channels=1))
    pixels = np.stack([test.read(index) for index in range(len(test))])
    np.testing.assert_allclose(found.values, pixels.reshape(20, 64) / 127.5 - 1, atol=1e-6)
    assert found.labels.tolist() == test.labels.tolist()
    shrunk = pixel_features(test, preprocessing=default_preprocessing((64, 64), channels=1))
    assert shrunk.values.shape == (20, 28 * 28)


def test_pixels_of_nothing_readable_are_an_error(photos: Path) -> None:
    task = open_task(photos, channels=1)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image could be read"):
        pixel_features(task.train, preprocessing=default_preprocessing((8, 8), channels=1))
