import re
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from vitral.figures.classes import calibration_section, classes_section
from vitral.figures.finished_run import read_run_folder


def _scored(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(run_dir / "test_predictions.npz") as found:
        return found["labels"], found["probabilities"].argmax(axis=1)


def test_the_table_of_classes_equals_scikit_learn(part_of, run_dir):
    labels, predictions = _scored(run_dir)
    precision, recall, _, images = metrics.precision_recall_fscore_support(labels, predictions)
    page = part_of(run_dir, classes_section)
    for index, name in enumerate(["cat", "dog", "owl"]):
        shares = [f"{100 * share[index]:.1f} %" for share in (precision, recall)]
        assert page.row(name) == [name, str(images[index]), *shares]


def test_the_class_with_the_lowest_recall_is_marked(run_dir):
    recall = metrics.recall_score(*_scored(run_dir), average=None)
    written = classes_section(read_run_folder(run_dir))
    marked = re.findall(r'<tr class="worst"><th scope="row"><bdi>(\w+)<', written)
    assert marked == [["cat", "dog", "owl"][int(np.argmin(recall))]]


def test_the_most_frequent_confusion_is_told_in_words(part_of, run_dir):
    confusions = metrics.confusion_matrix(*_scored(run_dir))
    np.fill_diagonal(confusions, 0)
    true, predicted = np.unravel_index(confusions.argmax(), confusions.shape)
    names = ["cat", "dog", "owl"]
    assert (
        f"\u2018{names[true]}\u2019 taken for \u2018{names[predicted]}\u2019: "
        f"{confusions.max()} of 20 images ({5 * confusions.max():.1f} %)"
    ) in part_of(run_dir, classes_section).text


def test_the_calibration_error_is_told(part_of, run_dir):
    with np.load(run_dir / "test_predictions.npz") as found:
        labels, probabilities = found["labels"], found["probabilities"].astype(np.float64)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = [(confidence > m / 15) & (confidence <= (m + 1) / 15) for m in range(15)]
    gaps = [abs(right[in_bin].sum() - confidence[in_bin].sum()) / len(right) for in_bin in bins]
    text = part_of(run_dir, calibration_section).text
    assert f"{100 * sum(gaps):.1f} % calibration error" in text
    assert f"state a confidence of {100 * confidence.mean():.1f} %" in text


@pytest.mark.parametrize(
    ("right", "tendency"),
    [(9, "neither too sure nor too modest"), (7, "too sure by 20.0"), (10, "too modest by 10.0")],
)
def test_whether_the_model_is_too_sure_is_told(part_of, run_dir, right, tendency):
    shares = np.tile(np.float32([0.9, 0.06, 0.04]), (10, 1))
    labels = np.array([0] * right + [1] * (10 - right))
    names = np.array(["a.png"] * 10)
    np.savez(run_dir / "test_predictions.npz", labels=labels, probabilities=shares, names=names)
    assert f"the model is {tendency}" in part_of(run_dir, calibration_section).text
