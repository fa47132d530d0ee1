"""The result of a run: its score beside the controls, and what that means in words."""

from vitral.figures.bars import draw_bars
from vitral.figures.cautions import copies_across_splits, disagreement, not_a_test, num_copies
from vitral.figures.page import (
    Html,
    count,
    element,
    facts,
    interval,
    paragraph,
    percent,
    quoted,
    section,
)
from vitral.figures.run_folder import Record, RunFolder

NO_SCORE = (
    "There is no score: the data has no test and no validation image that could be read. Add "
    "images, so that some are left to score on."
)


def result_section(run: RunFolder) -> Html:
    """Write the score with its interval beside its controls, and what that means in words."""
    summary = run.summary
    if not summary["num_examples"]:
        return section("result", "Result", paragraph(NO_SCORE, class_="lead"))
    split = str(summary.get("split", "unknown"))
    if not run.is_of_classes:
        return _any_result(run, split)
    accuracy = float(summary["accuracy"])
    low, high = summary["accuracy_interval"]
    big = element(
        "div",
        element("strong", percent(accuracy)),
        element("span", f"{split} accuracy"),
        element("span", f"95 % interval {interval(low, high)}"),
        class_="score",
    )
    return section(
        "result",
        "Result",
        element("div", big, draw_bars(summary), class_="beside"),
        paragraph(*_in_words(run, split), class_="lead"),
        _of_several_classes(summary),
        paragraph(_against_controls(summary)),
        not_a_test(split),
        copies_across_splits(run),
        disagreement(run),
        paragraph(_denominator(summary), class_="small"),
    )


def _any_result(run: RunFolder, split: str) -> Html:
    """Write the figure that a run is judged by, and beside it whatever else was measured."""
    summary, metric = run.summary, run.metric
    better = "larger" if summary.get("larger_is_better", True) else "smaller"
    known = summary.get(f"{metric}_interval")
    big = element(
        "div",
        element("strong", _figure(summary.get(metric))),
        element("span", f"{split} {_words(metric)}, {better} is better"),
        element("span", f"95 % interval {_figure(known[0])} to {_figure(known[1])}")
        if known
        else None,
        class_="score",
    )
    names = [name for name in summary if _is_measured(name, summary[name]) and name != metric]
    return section(
        "result",
        "Result",
        element("div", big, class_="beside"),
        facts([(_words(name), _figure(summary[name])) for name in names]),
        not_a_test(split),
        copies_across_splits(run),
        paragraph(_scored(summary), class_="small"),
    )


def _is_measured(name: str, value: object) -> bool:
    return isinstance(value, float) and name not in ("epochs",)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not known"


def _in_words(run: RunFolder, split: str) -> list[object]:
    """Say what the score and its controls mean, the numbers first."""
    summary = run.summary
    unseen = split == "test" and not num_copies(run)
    low, high = summary["accuracy_interval"]
    words: list[object] = [
        f"On {count(summary['num_examples'], f'{split} image')}"
        f"{' that training never saw' if unseen else ''}, "
        f"{percent(summary['accuracy'])} are right{_how_right(summary)} "
        f"(95 % interval {interval(low, high)}).",
    ]
    if summary.get("majority_accuracy") is not None:
        majority = quoted(summary.get("majority_class", "the majority class") or "no class")
        words += [" Always answering ", majority, " would be right in "]
        words.append(percent(summary["majority_accuracy"]))
        if summary.get("pixel_accuracy") is None:
            words.append(".")
        else:
            pixels = percent(summary["pixel_accuracy"])
            words.append(f", logistic regression on the pixels in {pixels}.")
    return words


def _how_right(summary: Record) -> str:
    return " in all of their classes" if "f1_micro" in summary else ""


def _of_several_classes(summary: Record) -> Html | None:
    """Say how the classes fare one by one, where images may have any."""
    if "f1_micro" not in summary:
        return None
    known = {
        name: float("nan") if summary[name] is None else float(summary[name])
        for name in ("mean_average_precision", "f1_macro", "f1_micro")
    }
    return paragraph(
        f"Mean average precision {percent(known['mean_average_precision'])}. F1 at a probability "
        f"of 50 %: {percent(known['f1_micro'])} over all pairs of image and class, "
        f"{percent(known['f1_macro'])} on average over classes."
    )


def _against_controls(summary: Record) -> str | None:
    """Say whether the interval leaves the controls behind."""
    controls = {
        "the majority class": summary.get("majority_accuracy"),
        "logistic regression on the pixels": summary.get("pixel_accuracy"),
    }
    known = {name: float(share) for name, share in controls.items() if share is not None}
    if not known:
        return None
    best = max(known, key=lambda name: known[name])
    low, high = summary["accuracy_interval"]
    if low > known[best]:
        reach = "both controls" if len(known) == 2 else best
        return f"The whole interval lies above {reach}: the model learned more than that."
    if high < known[best]:
        return f"That is below {best}: this model is worse than a much simpler answer."
    return (
        f"The interval includes what {best} reaches: on these images the two can't be told apart."
    )


def _denominator(summary: Record) -> str:
    """Say over which images the score is a share."""
    skipped = summary.get("num_skipped", 0)
    if not skipped:
        return _scored(summary)
    return (
        f"{_scored(summary)} and {'is' if skipped == 1 else 'are'} counted neither as right nor as "
        "wrong."
    )


def _scored(summary: Record) -> str:
    """Say how many images were scored, and how many could not be; without the last point then."""
    scored, skipped = summary["num_examples"], summary.get("num_skipped", 0)
    said = f"Denominator: {count(scored, 'scored image')}. "
    if not skipped:
        return f"{said}None was skipped."
    return f"{said}{count(skipped)} more {'was' if skipped == 1 else 'were'} skipped (see Data)"
