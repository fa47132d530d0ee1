"""Building blocks of HTML pages: elements that escape their content, numbers, inline images.

Class names, paths and reasons are the user's data. Every string that becomes part of a page passes
through `element`, which escapes it unless it is `Html` already.
"""

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

VOID_ELEMENTS = frozenset({"img", "input", "meta"})
DASH = "\N{EN DASH}"
"""Placeholder for a missing number."""
UNIT = "\N{NO-BREAK SPACE}%"
STYLE = Path(__file__).with_name("report.css")


class Html(str):
    """Markup that is not escaped."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Render one element; children that are not `Html` and attribute values are escaped.

    Args:
        name: tag name.
        children: text, numbers or `Html`; None is left out.
        attributes: `class_` stands for `class`, other underscores for hyphens; None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID_ELEMENTS:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[object], separator: str = "") -> Html:
    """Concatenate children, escaping those that are not `Html`."""
    parts = (
        child if isinstance(child, Html) else html.escape(str(child))
        for child in children
        if child is not None
    )
    return Html(html.escape(separator).join(parts))


def name_of(text: object) -> Html:
    """Mark a name from the user's data, so that its text direction is isolated."""
    return element("bdi", text)


def quoted(text: object) -> Html:
    """Render a name from the user's data in quotation marks."""
    return join(
        ["\N{LEFT SINGLE QUOTATION MARK}", name_of(text), "\N{RIGHT SINGLE QUOTATION MARK}"]
    )


def shorten(text: object, limit: int = 32) -> str:
    """Shorten a name that is too long for a drawing."""
    name = str(text)
    return name if len(name) <= limit else f"{name[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def paragraph(*children: object, class_: str | None = None) -> Html:
    """Render one paragraph."""
    return element("p", *children, class_=class_)


def note(*children: object) -> Html:
    """Render a highlighted remark."""
    return element("p", *children, class_="note")


def missing(what: str) -> Html:
    """Render one line that explains why a section is empty."""
    return element("p", what, class_="missing")


def section(anchor: str, title: str, *children: object) -> Html:
    """Render one section of the report with its heading."""
    return element("section", element("h2", title), *children, id=anchor)


def collapsible(title: str, *children: object) -> Html:
    """Render a collapsible block."""
    return element("details", element("summary", title), *children)


def facts(rows: Iterable[tuple[str, object]], class_: str = "facts") -> Html:
    """Render a list of terms and values; rows whose value is None are left out."""
    return element(
        "dl",
        *(
            element("div", element("dt", term), element("dd", value))
            for term, value in rows
            if value is not None
        ),
        class_=class_,
    )


def table(
    head: Sequence[object], rows: Iterable[Html], *, class_: str | None = None, label: str
) -> Html:
    """Render a table that scrolls inside its frame if it is larger than the window.

    Args:
        head: names of the columns.
        rows: `tr` elements.
        class_: CSS class of the table.
        label: description of the table for screen readers.
    """
    header = element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
    body = element("table", header, element("tbody", *rows), class_=class_)
    return element("div", body, class_="scroll", role="region", aria_label=label, tabindex=0)


def row(first: object, *cells: object, class_: str | None = None) -> Html:
    """Render one row: a name, then its cells (text, or `td` elements unchanged)."""
    written = (
        cell if isinstance(cell, Html) and cell.startswith("<td") else element("td", cell)
        for cell in cells
    )
    return element("tr", element("th", first, scope="row"), *written, class_=class_)


def share_cell(share: float, *, class_: str = "share") -> Html:
    """Render a share as a percentage over a bar; NaN as a dash."""
    if math.isnan(share):
        return element("td", DASH, class_=class_)
    return element("td", percent(share), class_=class_, style=f"--share:{100 * share:.1f}%")


def inline_image(data: bytes, *, alt: str, kind: str = "png", class_: str | None = None) -> Html:
    """Render an image as a data URL."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return element("img", src=source, alt=alt, class_=class_, loading="lazy")


def percent(share: float) -> str:
    """Format a share as a percentage that reads 0 or 100 only if it is exactly that."""
    if math.isnan(share):
        return DASH
    digits = 1
    while digits < 6 and 0 < share < 1 and round(100 * share, digits) in (0.0, 100.0):
        digits += 1
    return f"{100 * share:.{digits}f}{UNIT}"


def interval(low: float, high: float) -> str:
    """Format an interval of shares."""
    return f"{percent(low).removesuffix(UNIT)} to {percent(high)}"


def count(number: float, noun: str = "") -> str:
    """Format a whole number with its noun: `1 image`, `2,000 images`."""
    if not noun:
        return f"{number:,.0f}"
    return f"{number:,.0f} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a regular noun."""
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def duration(seconds: float) -> str:
    """Format a time span in its two largest units: `2 h 05 min`, `3 min 12 s`, `4.2 s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


def document(title: str, *body: object, script: str = "", style: str = "") -> Html:
    """Render the whole page, with a policy that forbids to load anything or run other scripts.

    Args:
        title: of the window.
        body: content of the page.
        script: JavaScript that runs at the end of the page.
        style: CSS in addition to that of all pages.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        body = (*body, element("script", Html(script)))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE.read_text(encoding="utf-8") + style)),
    )
    return join(
        [Html("<!doctype html>\n"), element("html", head, element("body", *body), lang="en")]
    )
