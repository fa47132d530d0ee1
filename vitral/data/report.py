"""Facts about a data set to know before training on it, as plain data and in words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitral.data.check.check import check
from vitral.data.check.checked import checked_of
from vitral.data.check.problems import ERROR, NOTE, Problem
from vitral.data.dataset import ImageDataset
from vitral.data.order import WINDOW
from vitral.data.scan import MAX_FILES_READ
from vitral.data.sources.listing import class_counts

_MAX_EXAMPLES = 20
# Problems that the lines on skipped files and the notes report already.
_REPORTED_ELSEWHERE = ("unreadable", "not_read_yet", "not_tested", "empty_class")
# Plain words for Pillow's modes.
_MODES = {
    "1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette",
    "PA": "palette with alpha", "I;16": "16-bit grey", "I;16B": "16-bit grey", "F": "float grey",
}  # fmt: skip


def data_report(data: ImageDataset, *, name: str) -> dict[str, Any]:
    """Return counts, sizes, kinds, skipped files and duplicates, as plain data."""
    problems = check(checked_of(data)).problems
    file_ids = np.concatenate([examples.file_ids for examples in data.splits.values()])
    file_infos = [data.file_infos[file_id] for file_id in file_ids]
    looked_at = [file_info for file_info in file_infos if file_info.height]
    report: dict[str, Any] = {
        "name": name,
        "path": data.source,
        "classes": list(data.classes),
        "labels": ("any" if data.is_multi_label else "one") if data.classes else "none",
        "splits": {
            split: {
                "num_images": len(examples),
                "per_class": class_counts(examples.labels, num_classes=len(data.classes)).tolist(),
            }
            for split, examples in data.splits.items()
        },
        "formats": dict(Counter(file_info.format for file_info in looked_at)),
        "modes": dict(Counter(file_info.mode for file_info in looked_at)),
        "skipped": _skipped(data),
        "notes": [*data.notes, *_notes(data), *_dealt_with(problems)],
        "problems": [
            problem.record() | {"items": problem.record()["items"][:_MAX_EXAMPLES]}
            for problem in problems
        ],
    }
    if not looked_at:
        report["notes"].append(
            f"{len(data.file_infos):,} files, more than {MAX_FILES_READ:,}, were not looked into: "
            "`vitral data check` decodes and compares all"
        )
    if looked_at:
        report["sizes"] = _sizes([(file_info.height, file_info.width) for file_info in looked_at])
        report["duplicates"] = _duplicates(data)
    return report


def describe_report(report: dict[str, Any]) -> list[str]:
    """Return the report in a few lines."""
    counts = ", ".join(
        f"{part['num_images']:,} {split}" for split, part in report["splits"].items()
    )
    num_classes = len(report["classes"]) or "no"
    lines = [f"data: {report['name']}: {num_classes} classes, {counts} images"]
    if report["labels"] == "any":
        lines.append("      each image may have any of the classes")
    if "sizes" in report:
        smallest, largest = (_size(report["sizes"][key]) for key in ("smallest", "largest"))
        sizes = smallest if smallest == largest else f"{smallest} to {largest}"
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in report["formats"].items())
        modes = ", ".join(
            f"{_MODES.get(mode, mode)} {count:,}" for mode, count in report["modes"].items()
        )
        lines.append(f"      {sizes} pixels; {kinds}; {modes}")
    if report["skipped"]["count"]:
        reasons = ", ".join(
            f"{count:,} {reason}" for reason, count in report["skipped"]["reasons"].items()
        )
        lines.append(f"      skipped {report['skipped']['count']:,} files: {reasons}")
    lines += [f"      {note}" for note in report["notes"]]
    problems = [
        problem for problem in report["problems"] if problem["kind"] not in _REPORTED_ELSEWHERE
    ]
    return lines + [
        f"      {_problem_line(problem)}" for problem in problems if problem["weight"] != NOTE
    ]


def _problem_line(problem: dict[str, Any]) -> str:
    """Return a problem with its first file."""
    example = problem["items"][0]
    files, detail = " and ".join(example["files"]), example["detail"]
    location = f"{files} ({detail})" if files and detail else files or detail
    weight = "warning: " if problem["weight"] == ERROR else ""
    return f"{weight}{problem['what']}, such as {location}"


def _skipped(data: ImageDataset) -> dict[str, Any]:
    items = [*data.skipped, *(item for _, item in data.unreadable)]
    return {
        "count": len(items),
        "reasons": dict(Counter(item.reason for item in items).most_common()),
        "examples": [[item.name, item.reason] for item in items[:_MAX_EXAMPLES]],
    }


def _sizes(sizes: list[tuple[int, int]]) -> dict[str, list[int]]:
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    positions = {"smallest": 0, "median": len(ordered) // 2, "largest": -1}
    return {key: list(ordered[position]) for key, position in positions.items()}


def _duplicates(data: ImageDataset) -> dict[str, Any]:
    """Count images whose content appears before, in the same split and in another one."""
    first_seen: dict[str, tuple[str, str]] = {}
    within = across = 0
    examples: list[list[str]] = []
    for split, part in data.splits.items():
        for file_id in part.file_ids.tolist():
            name, digest = part.store.names[file_id], data.file_infos[file_id].digest
            if digest not in first_seen:
                first_seen[digest] = (name, split)
            elif first_seen[digest][1] == split:
                within += 1
            else:
                across += 1
                if len(examples) < _MAX_EXAMPLES:
                    examples.append([*first_seen[digest], name, split])
    return {"within": within, "across": across, "examples": examples}


def _dealt_with(problems: Sequence[Problem]) -> list[str]:
    """Return what is done to images, except for what other lines report."""
    reported = ("left_out", "deep")
    return [
        problem.sentence
        for problem in problems
        if problem.weight == NOTE and problem.kind not in reported
    ]


def _notes(data: ImageDataset) -> list[str]:
    notes = []
    deep = [file_info for file_info in data.file_infos if file_info.is_deep]
    if deep:
        lowest, highest = min(f.lowest for f in deep), max(f.highest for f in deep)
        notes.append(
            f"{len(deep):,} images of more than 8 bits, of values from {lowest:g} to {highest:g}"
        )
    if "train" in data.splits and data.splits["train"].blocks() is not None:
        notes.append(
            f"read in blocks of rows, whose order is random; {WINDOW:,} images or more are mixed "
            "at a time: `vitral data pack` makes shards of them that are mixed whole"
        )
    return notes


def _size(size: list[int]) -> str:
    return f"{size[0]} x {size[1]}"
