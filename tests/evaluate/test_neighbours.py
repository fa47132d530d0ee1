import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from support.frozen_features import overlapping_classes

from vitral.errors import DataError, RequestError
from vitral.evaluate import choose_knn, knn, neighbours

KINDS = [np.float32, np.float64]


def oracle(k: int, temperature: float) -> KNeighborsClassifier:
    """Caron et al.'s vote, by scikit-learn."""
    return KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
@pytest.mark.parametrize("k", [1, 10, 20, 60])
def test_votes_equal_scikit_learns(k: int, temperature: float, kind: type) -> None:
    features, labels, test, test_labels = overlapping_classes(test=200)
    features, test = features.astype(kind), test.astype(kind)
    found = knn(features, labels, test, test_labels, num_classes=3, k=k, temperature=temperature)
    expected = oracle(k, temperature).fit(features, labels).predict(test)
    np.testing.assert_array_equal(found.predictions, expected)
    assert found.accuracy == (expected == test_labels).mean()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(8, 60), st.integers(8, 60), st.integers(0, 9))
def test_nothing_depends_on_how_rows_are_divided(
    k: int, train_rows: int, queries: int, seed: int
) -> None:
    given_arrays = overlapping_classes(seed=seed)
    whole = knn(*given_arrays, num_classes=3, k=k)
    chosen = choose_knn(*given_arrays[:2], num_classes=3, ks=(3, k))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_TRAIN_ROWS", train_rows)
        patch.setattr(neighbours, "_QUERIES", queries)
        divided = knn(*given_arrays, num_classes=3, k=k)
        again = choose_knn(*given_arrays[:2], num_classes=3, ks=(3, k))
    np.testing.assert_array_equal(divided.predictions, whole.predictions)
    assert again == chosen


@given(st.integers(0, 50))
def test_the_length_of_a_row_does_not_matter(seed: int) -> None:
    features, labels, test, test_labels = overlapping_classes(seed=seed)
    lengths = 10 ** np.random.default_rng(seed).uniform(-200, 200, (100, 1))
    plain = knn(features, labels, test, test_labels, num_classes=3, k=9)
    scaled = features * lengths[:60], labels, test * lengths[60:], test_labels
    other = knn(*scaled, num_classes=3, k=9)
    np.testing.assert_array_equal(other.predictions, plain.predictions)


def test_a_very_low_temperature_asks_the_nearest_alone() -> None:
    given_arrays = overlapping_classes()
    nearest = knn(*given_arrays, num_classes=3, k=1)
    cold = knn(*given_arrays, num_classes=3, k=60, temperature=1e-9)
    np.testing.assert_array_equal(cold.predictions, nearest.predictions)


def test_a_class_without_a_training_row_is_never_answered() -> None:
    features, labels, test, test_labels = overlapping_classes()
    found = knn(features, labels, test, test_labels, num_classes=5)
    assert found.predictions.max() == 2


def test_the_chooser_leaves_each_row_out() -> None:
    features, labels, *_ = overlapping_classes(train=40)
    chosen = choose_knn(
        features, labels, num_classes=3, ks=(2, 5, 39, 40, 41), temperatures=(0.05, 0.5)
    )
    others = [np.arange(40) != row for row in range(40)]
    expected = {}
    for k in (2, 5, 39):
        for temperature in (0.05, 0.5):
            model = oracle(k, temperature)
            answers = [
                model.fit(features[rest], labels[rest]).predict(features[~rest])[0]
                for rest in others
            ]
            expected[k, temperature] = (np.array(answers) == labels).mean()
    assert chosen.accuracies == pytest.approx(expected)
    assert expected[chosen.k, chosen.temperature] == max(expected.values())


def test_the_first_of_equal_settings_is_chosen() -> None:
    features = np.repeat(np.eye(2), 30, axis=0)
    labels = np.repeat([0, 1], 30)
    chosen = choose_knn(features, labels, num_classes=2)
    assert (chosen.k, chosen.temperature) == (10, 0.03)
    assert set(chosen.accuracies) == {(k, t) for k in (10, 20) for t in (0.03, 0.07, 0.2)}


def test_of_many_rows_some_are_left_out_in_turn() -> None:
    features, labels, *_ = overlapping_classes(train=200)
    every = choose_knn(features, labels, num_classes=3).accuracies
    some = choose_knn(features, labels, num_classes=3, max_queries=50).accuracies
    assert {round(share * 50, 9) % 1 for share in some.values()} == {0}
    assert max(abs(some[key] - every[key]) for key in every) < 0.2
    assert choose_knn(features, labels, num_classes=3, max_queries=50).accuracies == some
    assert choose_knn(features, labels, num_classes=3, max_queries=50, seed=1).accuracies != some


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 61}, "k=61, but 60 training rows can vote: use 1..60"),
        ({"k": 0}, "k=0, but 60 training rows can vote: use 1..60"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
    ],
)
def test_settings_that_cannot_be_used_are_errors(options: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        knn(*overlapping_classes(), num_classes=3, **options)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (60, {"ks": (60, 70)}, "the smallest of ks=60, but 59 training rows can vote: use 1..59"),
        (60, {"ks": (0, 5)}, "the smallest of ks=0, but 59 training rows can vote"),
        (1, {"ks": (1,)}, "the smallest of ks=1, but no training row can vote: give more rows"),
        (60, {"ks": ()}, "ks or temperatures is empty: give at least one of each"),
        (60, {"temperatures": ()}, "ks or temperatures is empty"),
        (60, {"temperatures": (0.1, -1.0)}, "temperature=-1.0 must be above 0"),
        (60, {"max_queries": 0}, "max_queries=0 must be above 0"),
    ],
)
def test_a_choice_that_cannot_be_made_is_an_error(rows: int, options: dict, message: str) -> None:
    features, labels, *_ = overlapping_classes()
    with pytest.raises(RequestError, match=message):
        choose_knn(features[:rows], labels[:rows], num_classes=3, **options)


def test_rows_of_zeros_have_no_direction() -> None:
    features, labels, test, test_labels = overlapping_classes()
    empty, empty_test = features.copy(), test.copy()
    empty[5], empty_test[7] = 0, 0
    message = r"train_features\[5\] is all zeros and has no direction to compare: leave the row out"
    with pytest.raises(DataError, match=message):
        knn(empty, labels, test, test_labels, num_classes=3)
    with pytest.raises(DataError, match=message):
        choose_knn(empty, labels, num_classes=3)
    with pytest.raises(DataError, match=r"test_features\[7\] is all zeros"):
        knn(features, labels, empty_test, test_labels, num_classes=3)
