from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import DataError, RequestError
from vitral.evaluate import draw_support, mean_interval
from vitral.evaluate.support import t_quantile


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shots", [1, 5, 10, 25])
def test_the_draw_is_big_visions(shots: int, seed: int, shared: Path) -> None:
    stored = np.load(shared / "reference" / "fewshot.npz")
    drawn = draw_support(stored["train_labels"], shots=shots, seed=seed, num_classes=20)
    np.testing.assert_array_equal(drawn, stored[f"seed{seed}/shot{shots}/train_indices"])


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 9), st.randoms())
def test_each_class_is_drawn_equally_and_more_shots_hold_fewer(
    classes: int, shots: int, seed: int, random: object
) -> None:
    labels = np.random.default_rng(seed + 1).permutation(np.repeat(np.arange(classes), 7))
    drawn = draw_support(labels, shots=shots, seed=seed, num_classes=classes)
    assert labels[drawn].tolist() == np.repeat(np.arange(classes), shots).tolist()
    assert len(set(drawn.tolist())) == len(drawn)
    more = draw_support(labels, shots=7, seed=seed, num_classes=classes)
    assert set(drawn.tolist()) <= set(more.tolist())


def test_another_seed_draws_others() -> None:
    labels = np.arange(60) % 3
    first, second = (draw_support(labels, shots=5, seed=s, num_classes=3) for s in (0, 1))
    assert set(first.tolist()) != set(second.tolist())


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 0, 0, 1, 1], {"shots": 3}, "shots=3: class 1 has 2 examples: use shots=2 at most"),
        (
            [0, 0, 1],
            {"shots": 3},
            r"class 1 has 1 examples \(and 1 more classes have too few\): use shots=1 at most",
        ),
        ([0, 0], {}, "class 1 has 0 examples: give examples of every class"),
        ([0, 1], {"shots": 0}, "shots=0 must be 1 or more"),
        ([0, 1], {"seed": -1}, "seed=-1 must be 0 or more"),
        ([[0, 1], [1, 1]], {}, r"labels has the shape \(2, 2\), several classes a row"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(
    labels: list[int], options: dict[str, int], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        draw_support(np.array(labels), **({"shots": 1, "seed": 0, "num_classes": 2} | options))


def test_labels_out_of_range_are_named() -> None:
    with pytest.raises(DataError, match=r"labels\[1\]=2: classes are numbered from 0..1"):
        draw_support(np.array([0, 2]), shots=1, seed=0, num_classes=2)


@pytest.mark.parametrize("coverage", [0.5, 0.95, 0.999])
def test_quantiles_are_students(coverage: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy: the extra `vtab`")
    for freedom in (*range(1, 12), 29, 30, 500):
        oracle = stats.t.ppf((1 + coverage) / 2, freedom)
        assert t_quantile(freedom, coverage=coverage) == pytest.approx(oracle, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_the_interval_over_seeds_is_students(values: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs SciPy: the extra `vtab`")
    mean, low, high = mean_interval(values)
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    expected = (np.mean(values), np.mean(values) - half, np.mean(values) + half)
    assert (mean, low, high) == pytest.approx(expected, abs=1e-12)


def test_one_value_has_no_interval_and_none_is_an_error() -> None:
    assert mean_interval([0.25]) == (0.25, None, None)
    with pytest.raises(RequestError, match="values is empty: give a score a seed"):
        mean_interval([])
