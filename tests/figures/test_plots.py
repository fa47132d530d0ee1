import os
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vitral.figures.plots import (
    class_labels,
    draw_confusions,
    draw_curves,
    draw_reliability,
    running_mean,
    save_figure,
)
from vitral.metrics import calibrate

HOSTILE = [
    "$x^2$ {\\frac",
    "$\\frac{$",
    "$",
    "猫",
    "שלום",
    "<b>&\"'",
    "two\nlines",
    "",
    "x" * 90,
    "\udc80",
]


def _rows(values, split="train"):
    return [
        {"step": 10 * i, "epoch": i / 4, "split": split, "loss": value, "accuracy": None}
        for i, value in enumerate(values)
    ]


def _texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(mpl.text.Text)}


def test_names_that_the_font_lacks_letters_for_are_numbers():
    labels = class_labels(HOSTILE)
    assert labels[:4] == ["$x^2$ {\\frac", "$\\frac{$", "$", "#3"]
    assert labels[6:8] == ["#6", "#7"]
    assert labels[8] == "x" * 21 + "\N{HORIZONTAL ELLIPSIS}"
    assert labels[9] == "#9"


def test_many_classes_are_numbers():
    assert class_labels(["a"] * 60)[0] == "a"
    assert class_labels(["a"] * 61)[60] == "#60"


def test_hostile_names_are_drawn_as_they_stand(tmp_path):
    figure = draw_confusions(np.eye(len(HOSTILE), dtype=np.int64), HOSTILE)
    save_figure(figure, tmp_path / "plot.png")
    assert {"$x^2$ {\\frac", "$", "<b>&\"'"} <= _texts(figure)


@pytest.mark.parametrize("num_classes", [2, 12, 25, 60, 200])
def test_a_confusion_matrix_is_drawn_for_any_number_of_classes(tmp_path, num_classes):
    confusions = np.full((num_classes, num_classes), 3) + 40 * np.eye(num_classes, dtype=np.int64)
    names = [f"class {index}" for index in range(num_classes)]
    figure = draw_confusions(confusions, names)
    save_figure(figure, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        assert min(plot.size) > 600
    assert ("43" in _texts(figure)) == (num_classes <= 25)
    assert ("class 1" in _texts(figure)) == (num_classes <= 60)


def test_right_is_blue_and_wrong_is_red():
    figure = draw_confusions(np.array([[1, 1], [0, 2]]), ["a", "b"])
    (image,) = figure.axes[0].images
    red, _, blue = np.moveaxis(image.get_array(), -1, 0)
    assert (blue > red)[0, 0]
    assert (red > blue)[0, 1]
    assert blue[1, 1] - red[1, 1] > blue[0, 0] - red[0, 0]


def test_curves_show_the_values_of_each_split():
    rows = _rows([3.0, 2.0, 1.0]) + _rows([2.5, 2.25], "validation")
    lines = {line.get_label(): line for line in draw_curves(rows).axes[0].lines}
    assert lines["training"].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert lines["validation"].get_ydata().tolist() == [2.5, 2.25]
    assert lines["training"].get_xdata().tolist() == [0, 10, 20]


def test_few_shot_scores_are_drawn_beside_the_accuracies(tmp_path):
    rows = _rows([3.0, 2.0]) + [
        {"step": 10 * i, "epoch": i, "split": f"{data}/5-shot", "accuracy": value}
        for data in ("pets", "dtd")
        for i, value in enumerate((0.25, 0.5))
    ]
    figure = draw_curves(rows)
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[1].lines}
    assert lines == {"pets/5-shot": [25.0, 50.0], "dtd/5-shot": [25.0, 50.0]}
    assert {"training", "pets/5-shot", "dtd/5-shot"} <= _texts(figure)
    assert [line.get_label() for line in figure.axes[0].lines] == ["training"]
    save_figure(figure, tmp_path / "plot.png")


def test_long_runs_count_in_epochs():
    figure = draw_curves(_rows([2.0] * 12))
    assert figure.axes[1].get_xlabel() == "epoch"
    assert figure.axes[0].lines[0].get_xdata()[-1] == 11 / 4


def test_values_that_are_not_finite_leave_gaps(tmp_path):
    figure = draw_curves(_rows([3.0, float("nan"), float("inf"), None, 1.0]))
    save_figure(figure, tmp_path / "plot.png")
    y = figure.axes[0].lines[0].get_ydata()
    assert np.isnan(y).tolist() == [False, True, True, True, False]


def test_curves_without_rows_are_an_empty_figure(tmp_path):
    save_figure(draw_curves([]), tmp_path / "plot.png")
    save_figure(draw_curves(_rows([float("nan")] * 3)), tmp_path / "plot.png")


def test_a_running_mean_shrinks_its_window_at_the_ends_and_passes_over_gaps():
    values = np.array([0.0, 3.0, np.nan, 6.0, 9.0])
    np.testing.assert_allclose(running_mean(values, 3), [1.5, 1.5, 4.5, 7.5, 7.5])


def test_noisy_curves_are_drawn_pale_under_their_mean():
    noise = np.random.default_rng(0).normal(size=300)
    raw, smooth = draw_curves(_rows(noise)).axes[0].lines
    assert np.array_equal(raw.get_ydata(), noise)
    assert np.std(smooth.get_ydata()) < 0.5 * np.std(noise)


def test_the_reliability_diagram_shows_accuracy_by_confidence():
    confidence = np.full(10, 0.9)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    figure = draw_reliability(calibrate(probabilities, np.array([0] * 7 + [1] * 3), num_bins=10))
    right, too_sure, too_modest = (bars[0].get_height() for bars in figure.axes[0].containers)
    assert (right, too_sure, too_modest) == pytest.approx((70, 20, 0))


def test_the_callers_matplotlib_settings_change_nothing(tmp_path):
    rows = _rows([3.0, 2.0, 1.0])
    save_figure(draw_curves(rows), tmp_path / "plain.png")
    settings = {
        "axes.facecolor": "black",
        "text.usetex": True,
        "font.size": 30,
        "lines.marker": "x",
    }
    with mpl.rc_context(settings):
        save_figure(draw_curves(rows), tmp_path / "changed.png")
        assert mpl.rcParams["font.size"] == 30
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "changed.png").read_bytes()


def test_the_users_matplotlibrc_changes_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: black\nfont.family: serif\n")
    code = "from vitral.figures.plots import STYLE; print(STYLE['axes.facecolor'])"
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "white"


def test_drawing_imports_neither_pyplot_nor_torch():
    code = (
        "import sys, vitral.figures.report\n"
        "print([name for name in ('matplotlib.pyplot', 'torch') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
