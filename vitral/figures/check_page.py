"""The HTML page of a data check: each kind of problem with pictures of its files."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.figures.html import (
    Html,
    collapsible,
    count,
    document,
    element,
    facts,
    inline_image,
    join,
    name_of,
    paragraph,
    row,
    section,
    table,
)
from vitral.figures.pictures import to_picture, to_png

MAX_PICTURED = 24
"""Maximum number of occurrences of each kind of problem with pictures."""
MAX_LISTED = 200
"""Maximum number of occurrences listed by name."""
_WEIGHTS = {
    "error": "Would make training or score wrong",
    "warning": "Should be looked at",
    "note": "Dealt with",
}


def check_page(record: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]) -> str:
    """Render the page.

    Args:
        record: of a check, as printed by `vitral data check --json`.
        pictures: (h, w, C) by file name, for the files that can be shown.
    """
    splits = ", ".join(f"{number:,} {split}" for split, number in record["splits"].items())
    head = section(
        "data",
        f"Check of {record['name']}",
        paragraph(f"Verdict: {record['verdict']}.", class_="verdict"),
        facts(
            [
                ("Place", name_of(record["source"])),
                ("Files", count(record["num_files"])),
                ("Usable images", f"{record['num_images']:,} ({splits})"),
            ]
        ),
    )
    parts = [_part(weight, record, pictures) for weight in _WEIGHTS]
    return document(f"Check of {record['name']}", element("main", head, *parts, _folds(record)))


def _part(
    weight: str, record: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]
) -> Html | None:
    """Render all kinds of problems of one severity."""
    problems = [problem for problem in record["problems"] if problem["weight"] == weight]
    if not problems:
        return None
    return section(weight, _WEIGHTS[weight], *(_problem(problem, pictures) for problem in problems))


def _problem(problem: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]) -> Html:
    items = problem["items"]
    shown = [item for item in items if any(name in pictures for name in item["files"])]
    cards = [_card(item, pictures) for item in shown[:MAX_PICTURED]]
    rows = [row(_names(item), item["detail"]) for item in items[:MAX_LISTED]]
    title = count(len(items), "occurrence")
    if len(items) > MAX_LISTED:
        title += f", the first {MAX_LISTED}"
    listed = table(["Files", "What"], rows, class_="files", label=problem["what"])
    return join(
        [
            element("h3", problem["what"]),
            element("div", *cards, class_="cards") if cards else None,
            collapsible(title, listed) if len(cards) < len(items) else None,
        ]
    )


def _card(item: Mapping[str, Any], pictures: Mapping[str, NDArray[np.uint8]]) -> Html:
    """Render the picture of a file, or those of equal files side by side."""
    known = [name for name in item["files"] if name in pictures]
    images = [inline_image(to_png(to_picture(pictures[name])), alt=name) for name in known]
    caption = element(
        "figcaption",
        element("div", item["detail"]) if item["detail"] else None,
        *(element("div", name_of(name), class_="file") for name in item["files"]),
    )
    return element("figure", element("div", join(images), class_="pair"), caption)


def _names(item: Mapping[str, Any]) -> Html:
    names = [name_of(name) for name in item["files"]]
    return join(names, " = ") if names else Html("")


def _folds(record: Mapping[str, Any]) -> Html | None:
    folds: Mapping[str, list[int]] = record.get("folds") or {}
    if not folds:
        return None
    width = len(next(iter(folds.values())))
    rows = [
        row(name_of(name), *(count(num_images) for num_images in counts))
        for name, counts in folds.items()
    ]
    head = ["Class", *(f"Fold {number}" for number in range(width))]
    return section("folds", "Folds", table(head, rows, class_="counts", label="Images by fold"))
