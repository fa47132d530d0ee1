from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frozen_features import overlapping_classes

from vitral.errors import DataError, RequestError
from vitral.evaluate import draw_support, fewshot, fewshot_sweep, mean_interval
from vitral.statistics import t_quantile

SHOTS = (1, 5, 10, 25)


def plain_scores(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray, *, l2: float, num_classes: int
) -> np.ndarray:
    """Return scores (M, K) by the formula as it is written."""
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-5
    rows, test_rows = ((part - mean) / std for part in (features, test))
    rows, test_rows = (
        np.column_stack([part, np.full(len(part), 100.0)]) for part in (rows, test_rows)
    )
    targets = 2.0 * np.eye(num_classes)[labels] - 1
    gram = rows.T @ rows + l2 * np.eye(rows.shape[1])
    return test_rows @ np.linalg.pinv(gram, rcond=1e-13, hermitian=True) @ rows.T @ targets


@given(
    st.integers(4, 40),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from([0.0, 1e-3, 1.0, 32.0, 2.0**10, 1e7]),
)
def test_predictions_equal_those_of_the_formula(
    train: int, width: int, classes: int, l2: float
) -> None:
    given_arrays = overlapping_classes(train=train, test=30, width=width, classes=classes)
    features, labels, test, _ = given_arrays
    scores = plain_scores(features, labels, test, l2=l2, num_classes=classes)
    ranked = np.sort(scores, axis=1)
    clear = np.ones(30, bool) if classes == 1 else ranked[:, -1] - ranked[:, -2] > 1e-7
    for found in (fewshot(*given_arrays, l2=l2), fewshot_sweep(*given_arrays, l2s=[l2])[l2]):
        np.testing.assert_array_equal(found.predictions[clear], scores.argmax(axis=1)[clear])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shots", SHOTS)
def test_accuracy_equals_big_visions(shots: int, seed: int, shared: Path) -> None:
    stored = np.load(shared / "reference" / "fewshot.npz")
    support = stored[f"seed{seed}/shot{shots}/train_indices"]
    features, labels = stored["train_features"][support], stored["train_labels"][support]
    test = stored["test_features"], stored["test_labels"]
    l2s = stored["l2_reg"].tolist()
    swept = fewshot_sweep(features, labels, *test, l2s=l2s)
    for number, l2 in enumerate(l2s):
        found = fewshot(features, labels, *test, l2=l2)
        index = seed, number, SHOTS.index(shots)
        assert found.accuracy == pytest.approx(stored["accuracy_fp64"][index], abs=1e-9)
        np.testing.assert_array_equal(swept[l2].predictions, found.predictions)
        if l2 >= 2**10:
            official = stored["accuracy_official_fp32"][index]
            assert found.accuracy == pytest.approx(official, abs=1 / 600 + 1e-6)
        if seed == 0:
            stored_answers = stored[f"seed0/shot{shots}/l2_{number}/predictions_fp64"]
            np.testing.assert_array_equal(found.predictions, stored_answers)


def test_the_default_strength_is_big_visions() -> None:
    given_arrays = overlapping_classes(train=9, width=20)
    default, stated = fewshot(*given_arrays), fewshot(*given_arrays, l2=1024)
    np.testing.assert_array_equal(default.predictions, stated.predictions)
    assert (default.predictions != fewshot(*given_arrays, l2=0).predictions).any()


@given(st.integers(0, 20))
def test_unit_and_zero_point_of_features_do_not_matter(seed: int) -> None:
    features, labels, test, test_labels = overlapping_classes(seed=seed)
    generator = np.random.default_rng(seed)
    unit, zero = 10 ** generator.uniform(1, 4, 6), generator.normal(size=6) * 100
    plain = fewshot(features, labels, test, test_labels)
    other = fewshot(features * unit + zero, labels, test * unit + zero, test_labels)
    assert (plain.predictions == other.predictions).mean() > 0.97  # 1e-5 is added to deviations


def test_the_number_of_classes_is_that_of_both_parts() -> None:
    features, labels, test, _ = overlapping_classes()
    assert fewshot(features, labels, test, labels[:40]).accuracy >= 0
    with pytest.raises(DataError, match="class 3 has no row in train_labels"):
        fewshot(features, labels, test, np.full(40, 3))


def test_a_support_of_one_row_answers_its_class() -> None:
    for l2 in (0, 1024):
        found = fewshot(np.ones((1, 3)), [0], np.zeros((2, 3)), [0, 0], l2=l2)
        assert found.predictions.tolist() == [0, 0]
        assert found.accuracy == 1


@pytest.mark.parametrize("l2", [-1.0, float("nan"), float("inf")])
def test_a_strength_must_be_a_number_from_0_on(l2: float) -> None:
    given_arrays = overlapping_classes()
    with pytest.raises(RequestError, match=f"l2={l2} must be 0 or more; big_vision's is 1024"):
        fewshot(*given_arrays, l2=l2)
    with pytest.raises(RequestError, match=f"l2={l2} must be 0 or more"):
        fewshot_sweep(*given_arrays, l2s=[1.0, l2])


def test_a_sweep_needs_a_strength() -> None:
    with pytest.raises(RequestError, match="l2s is empty: give at least one"):
        fewshot_sweep(*overlapping_classes(), l2s=[])


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
