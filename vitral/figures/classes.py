"""Sections of a report on classes: scores by class, confusions, and calibration."""

import numpy as np

from vitral.figures.finished_run import FinishedRun
from vitral.figures.html import (
    Html,
    count,
    element,
    inline_image,
    join,
    missing,
    name_of,
    paragraph,
    percent,
    quoted,
    row,
    section,
    share_cell,
    table,
)
from vitral.figures.plots import (
    MAX_COUNTED,
    MAX_SMALL,
    class_labels,
    draw_confusions,
    draw_reliability,
    save_figure,
)
from vitral.metrics import (
    THRESHOLD,
    Calibration,
    Floats,
    Integers,
    average_precisions,
    calibrate,
    count_confusions,
    decision_counts,
    f1_scores,
    frequent_confusions,
    precision_and_recall,
    ratio,
)

ABSENT = "This folder has no test_predictions.npz, so there is nothing to count."
NUM_CONFUSIONS = 8


def classes_section(run: FinishedRun) -> Html:
    """Draw `confusion.png` and render it with the table of classes and the frequent mistakes."""
    title = "Classes"
    if not _has_predictions(run):
        return section("classes", title, missing(ABSENT))
    if run.is_multi_label:
        return section("classes", title, _table_of_decisions(run))
    classes = run.classes
    predictions = run.predictions["probabilities"].argmax(axis=1)
    confusions = count_confusions(run.predictions["labels"], predictions, num_classes=len(classes))
    path = run.path / "confusion.png"
    save_figure(draw_confusions(confusions, classes), path)
    alt = "Confusion matrix; its largest errors are listed in the text"
    numbered = any(label.startswith("#") for label in class_labels(classes))
    split = str(run.summary.get("split", "scored"))
    return section(
        "classes",
        title,
        _table_of_classes(confusions, classes, split=split, numbered=numbered),
        element("h3", "What is taken for what"),
        _frequent(confusions, classes),
        inline_image(path.read_bytes(), alt=alt, class_=f"plot {_width(len(classes))}"),
        paragraph(_legend(numbered=numbered), class_="small"),
    )


def calibration_section(run: FinishedRun) -> Html:
    """Draw `calibration.png` and render it with an explanation."""
    title = "Calibration"
    if not _has_predictions(run):
        return section("calibration", title, missing(ABSENT))
    calibration = calibrate(run.predictions["probabilities"], run.predictions["labels"])
    path = run.path / "calibration.png"
    labels = {"right": "has the class", "counted": "pairs"} if run.is_multi_label else {}
    save_figure(draw_reliability(calibration, **labels), path)
    picture = inline_image(
        path.read_bytes(), alt="Reliability diagram: accuracy over confidence", class_="plot"
    )
    describe = _describe_multi_label if run.is_multi_label else _describe_calibration
    words = element("div", *describe(calibration))
    return section("calibration", title, element("div", words, picture, class_="beside"))


def _table_of_decisions(run: FinishedRun) -> Html:
    """Render images, average precision, precision, recall and F1 per class of multi-label data."""
    probabilities, labels = run.predictions["probabilities"], run.predictions["labels"]
    has, given, both = decision_counts(probabilities, labels)
    columns = [
        average_precisions(probabilities, labels),
        ratio(both, given),
        ratio(both, has),
        f1_scores(has, given, both),
    ]
    worst = lowest(columns[0])
    rows = [
        row(
            name_of(name),
            element("td", count(int(has[index])), class_="number"),
            *(share_cell(float(column[index])) for column in columns),
            class_="worst" if index in worst else None,
        )
        for index, name in enumerate(run.classes)
    ]
    split = f"{run.summary.get('split', 'scored')} images".capitalize()
    head = ["Class", split, "Average precision", "Precision", "Recall", "F1"]
    return join(
        [
            table(head, rows, class_="classes several", label="Figures by class"),
            paragraph(
                "Images may have any classes. Average precision: how well the images of a class "
                "stand before the others when all are sorted by its probability; 100 % where no "
                "other stands before them. Precision, recall and F1: where a class is given above "
                f"a probability of {percent(THRESHOLD)}. Marked: the lowest average precisions.",
                class_="small",
            ),
        ]
    )


def _describe_multi_label(calibration: Calibration) -> list[Html]:
    """Describe the calibration of class probabilities for multi-label data."""
    return [
        element(
            "p", element("strong", percent(calibration.error)), " calibration error", class_="score"
        ),
        paragraph(
            "Each pair of image and class counts. On average a class is given a probability of "
            f"{percent(calibration.mean_confidence)}, and an image has it in "
            f"{percent(calibration.mean_accuracy)}."
        ),
        paragraph(
            "In the picture a bar that ends at the dashed line means what it says: of the pairs "
            "with a probability of 80 %, 80 % have the class."
        ),
    ]


def _has_predictions(run: FinishedRun) -> bool:
    return bool(run.predictions) and len(run.predictions["labels"]) > 0


def _table_of_classes(
    confusions: Integers, classes: list[str], *, split: str, numbered: bool
) -> Html:
    """Render images, precision and recall per class, with the lowest recalls marked."""
    precision, recall = precision_and_recall(confusions)
    worst = lowest(recall)
    rows = []
    for index, name in enumerate(classes):
        number = element("td", f"#{index}", class_="number") if numbered else None
        cells = [
            element("td", count(int(confusions[index].sum())), class_="number"),
            share_cell(float(precision[index])),
            share_cell(float(recall[index])),
        ]
        marked = "worst" if index in worst else None
        rows.append(row(name_of(name), *([number] if number else []), *cells, class_=marked))
    head = ["Class", *(["Number"] if numbered else []), f"{split} images".capitalize()]
    return join(
        [
            table([*head, "Precision", "Recall"], rows, class_="classes", label="Figures by class"),
            paragraph(
                "Precision: of the images given this class, the share that is of it. Recall: of "
                "the images of this class, the share that was given it. "
                f"Marked: {_describe_marked(worst)}.",
                class_="small",
            ),
        ]
    )


def lowest(recall: Floats) -> set[int]:
    """Return the classes to mark: one in ten, those of lowest recall, but none of recall 1."""
    order = [int(index) for index in np.argsort(recall, kind="stable") if recall[index] < 1]
    return set(order[: max(1, len(recall) // 10)])


def _describe_marked(worst: set[int]) -> str:
    if not worst:
        return "nothing, every recall is 100 %"
    return "the lowest recall" if len(worst) == 1 else f"the {len(worst)} lowest recalls"


def _frequent(confusions: Integers, classes: list[str]) -> Html:
    """Render the most frequent mistakes as a list."""
    found = frequent_confusions(confusions, NUM_CONFUSIONS)
    if not found:
        return paragraph("Nothing: every image is right.")
    totals = confusions.sum(axis=1)
    items = [
        element(
            "li",
            quoted(classes[true]),
            " taken for ",
            quoted(classes[predicted]),
            f": {images:,} of {count(int(totals[true]), 'image')} "
            f"({percent(images / int(totals[true]))})",
        )
        for true, predicted, images in found
    ]
    return element("ol", *items, class_="confusions")


def _width(num_classes: int) -> str:
    """Return the CSS class for the width of the matrix."""
    if num_classes <= MAX_SMALL:
        return "small"
    return "wide" if num_classes > MAX_COUNTED else "medium"


def _legend(*, numbered: bool) -> str:
    """Return a text that explains the matrix."""
    text = (
        "Rows: true class. Columns: predicted class. Blue is right, red is wrong; the stronger, "
        "the larger the share of the row, rare mistakes drawn stronger than they are. "
        "confusion.png in the run folder is larger."
    )
    return f"{text} #0, #1, ... are the numbers in the table." if numbered else text


def _describe_calibration(calibration: Calibration) -> list[Html]:
    """Describe the calibration of the confidence."""
    gap = calibration.mean_confidence - calibration.mean_accuracy
    images = int(calibration.counts.sum())
    tendency = (
        "neither too sure nor too modest"
        if abs(gap) < 0.01
        else f"too {'sure' if gap > 0 else 'modest'} by {100 * abs(gap):.1f} points"
    )
    small = (
        f"With {count(images, 'image')}, chance alone makes part of this error."
        if images < 1000
        else None
    )
    return [
        element(
            "p", element("strong", percent(calibration.error)), " calibration error", class_="score"
        ),
        paragraph(
            f"On average the predictions state a confidence of "
            f"{percent(calibration.mean_confidence)}, and {percent(calibration.mean_accuracy)} "
            f"are right: the model is {tendency}.",
        ),
        paragraph(
            "In the picture a bar that ends at the dashed line means what it says: of the "
            "predictions with 80 % confidence, 80 % are right. Red is missing below what the "
            "confidence states, green is right beyond it."
        ),
        paragraph(
            "Expected calibration error: the distance between confidence and accuracy, averaged "
            f"over {len(calibration.counts)} bins of equal width, weighted by their images "
            f"(Guo et al., 2017). {small or ''}",
            class_="small",
        ),
    ]
