"""The accuracy of a model as a bar over its controls."""

from vitral.figures.page import Html, element, interval, percent, shorten
from vitral.figures.run_folder import Record

BAR_HEIGHT, ROW_HEIGHT, TICK_HEIGHT = 14, 52, 26


def draw_bars(summary: Record) -> Html:
    """Draw the accuracy, with its interval, over its controls as bars that fit any width."""
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
        place = {"x": at, "y": height + 14, "text_anchor": anchor}
        ticks.append(element("text", text, class_="tick", **place))
    return element("g", *ticks)


def _whisker(low: float, high: float, *, middle: float) -> Html:
    """Draw the interval as a line with ends."""
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
