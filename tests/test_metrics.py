import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from vitral.metrics import (
    average_precisions,
    calibrate,
    count_confusions,
    decision_counts,
    f1_scores,
    frequent_confusions,
    precision_and_recall,
    right_answers,
)


@pytest.fixture
def labelled() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 500)
    return labels, np.where(random.random(500) < 0.6, labels, random.integers(0, 7, 500))


def test_confusions_equal_those_of_scikit_learn(labelled):
    labels, predictions = labelled
    expected = metrics.confusion_matrix(labels, predictions, labels=range(8))
    assert np.array_equal(count_confusions(labels, predictions, num_classes=8), expected)


def test_precision_and_recall_equal_those_of_scikit_learn(labelled):
    labels, predictions = labelled
    found = precision_and_recall(count_confusions(labels, predictions, num_classes=8))
    expected = metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(8), zero_division=np.nan
    )
    np.testing.assert_allclose(found, expected[:2], rtol=1e-12)


def test_precision_is_not_a_number_for_a_class_that_was_never_given():
    precision, recall = precision_and_recall(np.array([[3, 0], [2, 0]]))
    assert precision[0] == 0.6
    assert np.isnan(precision[1])
    assert recall.tolist() == [1.0, 0.0]


def test_frequent_confusions_come_most_frequent_first_and_leave_out_what_is_right():
    confusions = np.array([[90, 1, 4], [7, 80, 0], [0, 2, 70]])
    assert frequent_confusions(confusions, 3) == [(1, 0, 7), (0, 2, 4), (2, 1, 2)]
    assert frequent_confusions(np.diag([3, 4]), 3) == []


def _two_class_probabilities(confidence: np.ndarray) -> np.ndarray:
    return np.stack([confidence, 1 - confidence], axis=1)


def test_the_calibration_error_of_one_confidence_is_its_distance_to_the_accuracy():
    labels = np.array([0] * 70 + [1] * 30)
    found = calibrate(_two_class_probabilities(np.full(100, 0.9)), labels)
    assert found.error == pytest.approx(0.2)
    assert found.counts.tolist() == [0] * 13 + [100, 0]
    assert (found.mean_confidence, found.mean_accuracy) == pytest.approx((0.9, 0.7))


def test_the_calibration_error_weighs_bins_by_their_images():
    # 30 images at 0.65, all right: |1 - 0.65| = 0.35; 10 at 0.95, 4 right: |0.4 - 0.95| = 0.55.
    confidence = np.array([0.65] * 30 + [0.95] * 10)
    labels = np.array([0] * 34 + [1] * 6)
    found = calibrate(_two_class_probabilities(confidence), labels, num_bins=10)
    assert found.error == pytest.approx((30 * 0.35 + 10 * 0.55) / 40)
    assert np.isnan(found.accuracy[0])
    assert found.accuracy[[6, 9]] == pytest.approx([1.0, 0.4])


def test_opposite_gaps_of_two_bins_do_not_cancel():
    confidence = np.array([0.6] * 10 + [0.8] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    found = calibrate(_two_class_probabilities(confidence), labels, num_bins=10)
    assert found.mean_confidence == pytest.approx(found.mean_accuracy)
    assert found.error == pytest.approx(0.2)


def test_a_confidence_of_one_falls_into_the_last_bin():
    found = calibrate(_two_class_probabilities(np.ones(4)), np.zeros(4, dtype=np.int64))
    assert found.counts[-1] == 4
    assert found.error == 0


# Images of any classes.

TABLES = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, (n, 3), elements=st.sampled_from([0.0, 0.2, 0.5, 0.51, 0.9, 1.0])),
        hnp.arrays(np.int64, (n, 3), elements=st.integers(0, 1)),
    )
)


@given(TABLES)
def test_average_precision_is_scikit_learn_s(table):
    probabilities, labels = table
    found = average_precisions(probabilities, labels)
    for precision, scores, marks in zip(found, probabilities.T, labels.T, strict=True):
        if marks.any():
            assert precision == pytest.approx(metrics.average_precision_score(marks, scores))
        else:
            assert np.isnan(precision)


@given(TABLES)
def test_f1_is_scikit_learn_s(table):
    probabilities, labels = table
    found = f1_scores(*decision_counts(probabilities, labels))
    expected = metrics.f1_score(labels, probabilities > 0.5, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found, expected)


def test_an_image_is_right_in_all_of_its_classes_or_wrong():
    probabilities = np.array([[0.9, 0.1, 0.6], [0.9, 0.6, 0.6], [0.1, 0.2, 0.5]])
    labels = np.array([[1, 0, 1], [1, 0, 1], [0, 0, 0]])
    assert right_answers(probabilities, labels).tolist() == [True, False, True]
    assert right_answers(probabilities, np.array([0, 1, 2])).tolist() == [True, False, True]


def test_each_pair_of_image_and_class_counts_in_the_calibration():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.95]])
    calibration = calibrate(probabilities, np.array([[1, 0], [1, 0]]), num_bins=2)
    assert calibration.counts.tolist() == [1, 3]
    np.testing.assert_allclose(calibration.accuracy, [0, 2 / 3])
    np.testing.assert_allclose(calibration.error, (0.05 + 3 * abs(2 / 3 - 0.95)) / 4)
