import json

import numpy as np
import pytest
from sklearn import metrics

from vitral.figures.report_header import head
from vitral.figures.result import result_section


def test_the_result_is_told_with_interval_controls_and_denominator(part_of, make_run):
    run_dir = make_run(per_class=50)
    with np.load(run_dir / "test_predictions.npz") as found:
        accuracy = metrics.accuracy_score(found["labels"], found["probabilities"].argmax(axis=1))
    text = part_of(run_dir, result_section).text
    assert (
        f"On 150 test images that training never saw, {100 * accuracy:.1f} % are right (95 % "
        f"interval {100 * accuracy - 5:.1f} to {100 * accuracy + 4:.1f} %). Always answering "
        "\u2018cat\u2019 would be right in 33.3 %, logistic regression on the pixels in 55.0 %."
    ) in text
    assert "The whole interval lies above both controls" in text
    assert "150 scored images. 2 more were skipped" in text


@pytest.mark.parametrize(
    ("pixel_accuracy", "said"),
    [
        (0.6, "The whole interval lies above both controls"),
        (0.70, "The interval includes what logistic regression on the pixels reaches"),
        (0.9, "That is below logistic regression on the pixels"),
        (None, "The whole interval lies above the majority class"),
    ],
)
def test_the_score_is_held_against_the_better_control(part_of, make_run, pixel_accuracy, said):
    changes = {"accuracy_interval": [0.66, 0.76], "pixel_accuracy": pixel_accuracy}
    text = part_of(make_run(summary=changes), result_section).text
    assert said in text
    assert ("logistic regression" in text) == (pixel_accuracy is not None)


def test_a_score_that_is_not_of_a_test_split_says_so(part_of, make_run):
    text = part_of(make_run(summary={"split": "validation"}), result_section).text
    assert "This is not a test score." in text
    assert "never saw" not in text


def test_copies_across_splits_take_the_claim_back(part_of, make_run):
    text = part_of(
        make_run(data_report={"duplicates": {"within": 0, "across": 3}}), result_section
    ).text
    assert "Some images are in two splits." in text
    assert "never saw" not in text


def test_a_summary_that_disagrees_with_the_predictions_is_told(part_of, make_run):
    assert "disagree" not in part_of(make_run("same"), result_section).text
    assert "disagree" in part_of(make_run("other", summary={"accuracy": 0.5}), result_section).text


def test_a_run_that_is_not_done_says_so(part_of, run_dir):
    status = {"state": "interrupted", "reason": "SIGTERM"}
    (run_dir / "status.json").write_text(json.dumps(status), encoding="utf-8")
    assert "This run is not finished: interrupted (SIGTERM)." in part_of(run_dir, head).text


def test_the_head_tells_what_was_done(part_of, run_dir):
    text = part_of(run_dir, head).text
    assert "ViT-Ti/8 trained on pets" in text
    assert "vitral train pets --set 'train.ema=0.9'" in text
    assert "3 min 12 s" in text
    assert "1 March 2026, 09:12 UTC" in text
    assert "5,526,346 parameters" in text


def test_the_bars_are_as_long_as_the_shares(part_of, make_run):
    page = part_of(
        make_run(summary={"accuracy": 0.875, "accuracy_interval": [0.85, 0.9]}), result_section
    )
    bars = [found for tag, found in page.elements if tag == "rect"]
    widths = {found["class"]: found["width"] for found in bars}
    assert widths == {"track": "100%", "bar-model": "87.50%", "bar-control": "33.33%"}
    whisker = next(found for tag, found in page.elements if tag == "line" and "x1" in found)
    assert whisker["x1"] == "0%"
    ends = [(found["x1"], found["x2"]) for tag, found in page.elements if tag == "line"]
    assert ("85.00%", "90.00%") in ends
