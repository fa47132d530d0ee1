"""The data section of a report: splits, classes, sizes, and skipped files."""

import statistics
from typing import Any

from vitral.figures.finished_run import FinishedRun, Record
from vitral.figures.html import (
    DASH,
    Html,
    collapsible,
    count,
    element,
    facts,
    join,
    missing,
    name_of,
    paragraph,
    row,
    section,
    table,
)

MAX_LISTED = 30
"""Maximum number of classes for one row per class."""


def data_section(run: FinishedRun) -> Html:
    """Render the data section."""
    report = run.data_report
    if not report:
        absent = "This folder has no data_report.json, so nothing is known about the data."
        return section("data", "Data", missing(absent))
    return section(
        "data",
        "Data",
        facts(
            [
                ("Name", name_of(report.get("name", DASH))),
                ("Place", name_of(report["path"]) if report.get("path") else None),
                ("Classes", count(len(report.get("classes") or []))),
                ("Height \N{MULTIPLICATION SIGN} width", _sizes(report.get("sizes"))),
                ("Formats", _tally(report.get("formats"))),
                ("Modes", _tally(report.get("modes"))),
            ]
        ),
        _splits(report),
        _notes(report.get("notes") or []),
        _skipped(report.get("skipped") or {}),
        _duplicates(report.get("duplicates")),
    )


def _splits(report: Record) -> Html | None:
    """Render images by split, and by class if there are few enough classes."""
    splits: dict[str, Record] = report.get("splits") or {}
    classes: list[str] = report.get("classes") or []
    if not splits:
        return None
    if len(classes) > MAX_LISTED:
        return _summary_of_splits(splits)
    rows = [
        row(name_of(name), *(_number(_of_class(split, index)) for split in splits.values()))
        for index, name in enumerate(classes)
    ]
    totals = (_number(split.get("num_images", 0)) for split in splits.values())
    rows.append(row("All", *totals, class_="total"))
    return table(["Class", *splits], rows, class_="counts", label="Images by class and split")


def _summary_of_splits(splits: dict[str, Record]) -> Html:
    """Render statistics of the class sizes of each split."""
    rows = []
    for name, split in splits.items():
        per_class = split.get("per_class") or [0]
        cells = [
            split.get("num_images", 0),
            min(per_class),
            statistics.median(per_class),
            max(per_class),
            sum(images == 0 for images in per_class),
        ]
        rows.append(row(name_of(name), *map(_number, cells)))
    head = ["Split", "Images", "Smallest class", "Median", "Largest class", "Empty classes"]
    return table(head, rows, class_="counts", label="Images by split")


def _of_class(split: Record, index: int) -> int:
    per_class = split.get("per_class") or []
    return int(per_class[index]) if index < len(per_class) else 0


def _number(value: float) -> Html:
    written = count(value) if value == int(value) else f"{value:,.1f}"
    return element("td", written, class_="number")


def _sizes(sizes: dict[str, list[int]] | None) -> str | None:
    """Format the smallest, median and largest size; only one if all are equal."""
    if not sizes:
        return None
    written = {
        name: " \N{MULTIPLICATION SIGN} ".join(str(side) for side in size)
        for name, size in sizes.items()
    }
    if len(set(written.values())) == 1:
        return f"{next(iter(written.values()))}, all"
    return ", ".join(f"{name} {size}" for name, size in written.items())


def _tally(counts: dict[str, int] | None) -> str | None:
    """Format the count of each kind, in descending order."""
    if not counts:
        return None
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{kind} ({images:,})" for kind, images in ordered)


def _notes(notes: list[str]) -> Html | None:
    """Render the notes from reading the data."""
    return element("ul", *(element("li", text) for text in notes)) if notes else None


def _skipped(skipped: Record) -> Html:
    """Render the skipped files, with reasons and examples."""
    total = int(skipped.get("count", 0))
    if not total:
        return paragraph("No file was skipped.")
    reasons = skipped.get("reasons") or {}
    listed = [element("li", f"{reason}: {count(files)}") for reason, files in reasons.items()]
    examples: list[Any] = skipped.get("examples") or []
    rows = [row(name_of(path), reason) for path, reason in examples]
    return join(
        [
            element("h3", f"{count(total, 'skipped file')}"),
            element("ul", *listed) if listed else None,
            collapsible(
                f"{count(len(rows), 'example')} (all of them: skipped.csv)",
                table(["File", "Reason"], rows, class_="files", label="Skipped files"),
            )
            if rows
            else None,
        ]
    )


def _duplicates(duplicates: Record | None) -> Html | None:
    """Render duplicates within and across splits; None if they were not searched for."""
    if duplicates is None:
        return None
    within, across = int(duplicates.get("within", 0)), int(duplicates.get("across", 0))
    if not within and not across:
        return paragraph("No image was found twice.")
    rows = [
        row(name_of(first), first_split, name_of(second), second_split)
        for first, first_split, second, second_split in duplicates.get("examples") or []
    ]
    head = ["File", "Split", "Same as", "Split"]
    return join(
        [
            element("h3", "Images found twice"),
            paragraph(f"Within a split: {within:,}. Across splits: {across:,}."),
            collapsible(
                count(len(rows), "example"),
                table(head, rows, class_="files", label="Duplicates"),
            )
            if rows
            else None,
        ]
    )
