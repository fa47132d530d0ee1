from pathlib import Path

import numpy as np
import pytest
from frozen_features import overlapping_classes
from hypothesis import given
from hypothesis import strategies as st

from vitral.errors import DataError, RequestError
from vitral.evaluate import fewshot, fewshot_sweep

SHOTS = (1, 5, 10, 25)


def plain_scores(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray, *, l2: float, num_classes: int
) -> np.ndarray:
    """Return scores (M, K) by the formula as it is written."""
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-5
    rows, own = ((part - mean) / std for part in (features, test))
    rows, own = (np.column_stack([part, np.full(len(part), 100.0)]) for part in (rows, own))
    targets = 2.0 * np.eye(num_classes)[labels] - 1
    gram = rows.T @ rows + l2 * np.eye(rows.shape[1])
    return own @ np.linalg.pinv(gram, rcond=1e-13, hermitian=True) @ rows.T @ targets


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
        place = seed, number, SHOTS.index(shots)
        assert found.accuracy == pytest.approx(stored["accuracy_fp64"][place], abs=1e-9)
        np.testing.assert_array_equal(swept[l2].predictions, found.predictions)
        if l2 >= 2**10:
            official = stored["accuracy_official_fp32"][place]
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
