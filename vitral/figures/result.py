"""The result section of a report: the score and its controls as bars and in words."""

from vitral.figures.finished_run import FinishedRun, Record
from vitral.figures.html import (
    Html,
    count,
    element,
    facts,
    interval,
    paragraph,
    percent,
    quoted,
    section,
    shorten,
)
from vitral.figures.report_header import copies_across_splits, disagreement, not_a_test, num_copies

NO_SCORE = (
    "There is no score: the data has no test and no validation image that could be read. Add "
    "images, so that some are left to score on."
)


def result_section(run: FinishedRun) -> Html:
    """Render the score with its interval and its controls, and an explanation."""
    summary = run.summary
    if not summary["num_examples"]:
        return section("result", "Result", paragraph(NO_SCORE, class_="lead"))
    split = str(summary.get("split", "unknown"))
    if not run.is_classification:
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
        paragraph(*_describe(run, split), class_="lead"),
        _of_several_classes(summary),
        paragraph(_against_controls(summary)),
        not_a_test(split),
        copies_across_splits(run),
        disagreement(run),
        paragraph(_denominator(summary), class_="small"),
    )


def _any_result(run: FinishedRun, split: str) -> Html:
    """Render the primary metric of a run, and all other metrics."""
    summary, metric = run.summary, run.metric
    better = "larger" if summary.get("larger_is_better", True) else "smaller"
    known = summary.get(f"{metric}_interval")
    big = element(
        "div",
        element("strong", _figure(summary.get(metric))),
        element("span", f"{split} {_plain_name(metric)}, {better} is better"),
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
        facts([(_plain_name(name), _figure(summary[name])) for name in names]),
        not_a_test(split),
        copies_across_splits(run),
        paragraph(_scored(summary), class_="small"),
    )


def _is_measured(name: str, value: object) -> bool:
    return isinstance(value, float) and name not in ("epochs",)


def _plain_name(name: str) -> str:
    return name.replace("_", " ")


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not known"


def _describe(run: FinishedRun, split: str) -> list[object]:
    """Describe the score and its controls, starting with the numbers."""
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
    """Describe the scores by class of multi-label data."""
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
    """Describe whether the interval is above the controls."""
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
    """Describe the denominator of the score."""
    skipped = summary.get("num_skipped", 0)
    if not skipped:
        return _scored(summary)
    return (
        f"{_scored(summary)} and {'is' if skipped == 1 else 'are'} counted neither as right nor as "
        "wrong."
    )


def _scored(summary: Record) -> str:
    """Describe how many images were scored and skipped; if some were, without a final full stop."""
    scored, skipped = summary["num_examples"], summary.get("num_skipped", 0)
    text = f"Denominator: {count(scored, 'scored image')}. "
    if not skipped:
        return f"{text}None was skipped."
    return f"{text}{count(skipped)} more {'was' if skipped == 1 else 'were'} skipped (see Data)"


BAR_HEIGHT, ROW_HEIGHT, TICK_HEIGHT = 14, 52, 26


def draw_bars(summary: Record) -> Html:
    """Draw the accuracy, with its interval, above its controls as bars of relative width."""
    bars: list[tuple[str, float, str]] = [
        (shorten(summary.get("model", "the model")), float(summary["accuracy"]), "bar-model")
    ]
    if summary.get("pixel_accuracy") is not None:
        pixel_accuracy = float(summary["pixel_accuracy"])
        bars.append(("logistic regression on the pixels", pixel_accuracy, "bar-control"))
    if summary.get("majority_accuracy") is not None:
        answer = summary.get("majority_class", "the majority class") or "no class"
        label = f"always {shorten(answer)}"
        bars.append((label, float(summary["majority_accuracy"]), "bar-control"))
    height = ROW_HEIGHT * len(bars)
    parts = [_ruler(height)]
    for index, (label, share, class_) in enumerate(bars):
        top = ROW_HEIGHT * index
        name = element("text", label, x="0", y=top + 18)
        value = element("text", percent(share), x="100%", y=top + 18, text_anchor="end")
        box = {"x": "0", "y": top + 25, "height": BAR_HEIGHT, "rx": 2}
        track = element("rect", width="100%", class_="track", **box)
        bar = element("rect", width=f"{100 * share:.2f}%", class_=class_, **box)
        parts.append(element("g", name, value, track, bar))
    parts.append(_whisker(*summary["accuracy_interval"], middle=25 + BAR_HEIGHT / 2))
    label = "Accuracy beside its controls; the numbers stand in the text."
    return element(
        "svg", *parts, class_="bars", role="img", aria_label=label, height=height + TICK_HEIGHT
    )


def _ruler(height: int) -> Html:
    """Draw the scale below the bars."""
    ticks = []
    for tick, anchor in (
        (0, "start"),
        (25, "middle"),
        (50, "middle"),
        (75, "middle"),
        (100, "end"),
    ):
        at = f"{tick}%"
        ticks.append(element("line", x1=at, x2=at, y1=height - 6, y2=height, class_="tick"))
        text = f"{tick} %" if tick == 100 else tick
        position = {"x": at, "y": height + 14, "text_anchor": anchor}
        ticks.append(element("text", text, class_="tick", **position))
    return element("g", *ticks)


def _whisker(low: float, high: float, *, middle: float) -> Html:
    """Draw the interval as a line with end caps."""
    left, right = f"{100 * low:.2f}%", f"{100 * high:.2f}%"
    ends = {"y1": middle - 6, "y2": middle + 6}
    return element(
        "g",
        element("title", f"95 % interval {interval(low, high)}"),
        element("line", x1=left, x2=right, y1=middle, y2=middle),
        element("line", x1=left, x2=left, **ends),
        element("line", x1=right, x2=right, **ends),
        class_="whisker",
    )
