import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from support.frozen_features import overlapping_classes

from vitral.errors import DataError, RequestError
from vitral.evaluate import linear_probe

GRID = (0.1, 1.0, 10.0, 100.0)


def oracle(features: np.ndarray, labels: np.ndarray, l2: float) -> LogisticRegression:
    return LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(features, labels)


@pytest.mark.parametrize(("train", "width"), [(90, 6), (30, 50)])
@pytest.mark.parametrize("l2", [0.3, 30.0])
def test_a_probe_equals_scikit_learns(train: int, width: int, l2: float) -> None:
    features, labels, test, test_labels = overlapping_classes(train=train, width=width)
    found = linear_probe(features, labels, test, test_labels, num_classes=3, l2_grid=(l2,))
    scaler = StandardScaler().fit(features)
    expected = oracle(scaler.transform(features), labels, l2)
    shares = expected.predict_proba(scaler.transform(test))
    np.testing.assert_allclose(found.probabilities, shares, atol=1e-4)
    np.testing.assert_array_equal(found.predictions, shares.argmax(axis=1))
    assert found.accuracy == (found.predictions == test_labels).mean()
    assert (found.l2, found.validation_accuracy) == (l2, {})


def test_weights_are_those_of_the_original_features() -> None:
    given_arrays = overlapping_classes()
    found = linear_probe(*given_arrays, num_classes=3, l2_grid=(1.0,))
    logits = given_arrays[2] @ found.weights + found.bias
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, shares, atol=1e-6)


def test_the_strength_is_chosen_by_the_validation_rows_and_all_rows_are_fitted() -> None:
    features, labels, test, test_labels = overlapping_classes(train=90, width=25)
    fitted, validation = (features[:60], labels[:60]), (features[60:], labels[60:])
    found = linear_probe(
        *fitted, test, test_labels, num_classes=3, validation=validation, l2_grid=GRID
    )
    scaler = StandardScaler().fit(fitted[0])
    expected = {
        l2: oracle(scaler.transform(fitted[0]), fitted[1], l2).score(
            scaler.transform(validation[0]), validation[1]
        )
        for l2 in GRID
    }
    assert found.validation_accuracy == pytest.approx(expected)
    best = max(expected.values())
    assert found.l2 == max(l2 for l2 in GRID if expected[l2] == best)
    whole = linear_probe(features, labels, test, test_labels, num_classes=3, l2_grid=(found.l2,))
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-4)


def test_without_validation_rows_a_part_of_each_class_is_held_out_and_then_fitted() -> None:
    features, labels, test, test_labels = overlapping_classes(train=90, width=25)
    splits = (features, labels, test, test_labels)
    found = linear_probe(*splits, num_classes=3, l2_grid=GRID)
    assert {round(share * 18, 9) % 1 for share in found.validation_accuracy.values()} == {0}
    whole = linear_probe(*splits, num_classes=3, l2_grid=(found.l2,))
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-4)
    again = linear_probe(*splits, num_classes=3, l2_grid=GRID)
    np.testing.assert_array_equal(found.weights, again.weights)


def test_another_seed_divides_otherwise() -> None:
    divisions = [
        linear_probe(*overlapping_classes(), num_classes=3, l2_grid=GRID, seed=seed)
        for seed in range(4)
    ]
    assert len({tuple(found.validation_accuracy.values()) for found in divisions}) > 1


@given(st.integers(0, 20))
def test_unit_and_zero_point_of_features_do_not_matter(seed: int) -> None:
    features, labels, test, test_labels = overlapping_classes(seed=seed)
    generator = np.random.default_rng(seed)
    unit, zero = 10 ** generator.uniform(-6, 6, 6), generator.normal(size=6)
    plain = linear_probe(features, labels, test, test_labels, num_classes=3, l2_grid=(1.0,))
    other = linear_probe(
        (features + zero) * unit, labels, (test + zero) * unit, test_labels, num_classes=3,
        l2_grid=(1.0,),
    )  # fmt: skip
    np.testing.assert_allclose(other.probabilities, plain.probabilities, atol=1e-4)


def test_features_that_do_not_vary_but_by_rounding_change_nothing() -> None:
    features, labels, test, test_labels = overlapping_classes()
    features, test = features.astype(np.float32), test.astype(np.float32)
    plain = linear_probe(features, labels, test, test_labels, num_classes=3, l2_grid=(1.0,))
    thousand = np.float32(1000)
    either = np.array([thousand, np.nextafter(thousand, np.float32(2000))])
    generator = np.random.default_rng(0)
    wide, wide_test = (
        np.column_stack([part, generator.choice(either, len(part))]) for part in (features, test)
    )
    other = linear_probe(wide, labels, wide_test, test_labels, num_classes=3, l2_grid=(1.0,))
    np.testing.assert_allclose(other.probabilities, plain.probabilities, atol=1e-3)
    constant = linear_probe(
        np.ones((4, 2)), [0, 1, 1, 1], np.ones((1, 2)), [1], num_classes=2, l2_grid=(1.0,)
    )
    np.testing.assert_allclose(constant.probabilities, [[0.25, 0.75]], atol=1e-5)


def test_classes_of_one_row_leave_nothing_to_choose_by() -> None:
    rows = np.eye(3)
    with pytest.raises(RequestError, match=r"single training row.*validation=\(features, labels\)"):
        linear_probe(rows, [0, 1, 2], rows, [0, 1, 2], num_classes=3)
    both = np.concatenate([rows, rows[:1]])
    found = linear_probe(both, [0, 1, 2, 0], rows, [0, 1, 2], num_classes=3)
    assert set(found.validation_accuracy.values()) <= {0.0, 1.0}  # one row is held out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2_grid": ()}, "l2_grid is empty: give at least one strength"),
        ({"l2_grid": (1.0, 0.0)}, "l2=0.0 must be above 0"),
        (
            {"validation": (np.ones((2, 5)), [0, 1])},
            "train_features has 6 columns, validation_features 5: take both from the same model",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_errors(options: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        linear_probe(*overlapping_classes(), num_classes=3, **options)


def test_validation_rows_are_checked_as_the_others() -> None:
    validation = np.ones((2, 6)), [0, 3]
    with pytest.raises(DataError, match=r"validation_labels\[1\]=3: classes are numbered from"):
        linear_probe(*overlapping_classes(), num_classes=3, validation=validation)
