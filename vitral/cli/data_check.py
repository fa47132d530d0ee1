"""`vitral data check`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options

if TYPE_CHECKING:
    from vitral.data.check.checked import CheckedData

DESCRIPTION = (
    "Find what is wrong with images, labels and splits before it costs a training. Every file is "
    "decoded once; nothing is changed. Exit status 3: something would make training or score wrong."
)
OPTIONS = (
    Option("data", "as for `vitral train`", metavar="DATA", required=True),
    DATA_DIR_OPTION,
    Option("--against", "other data that DATA's images should not be in", metavar="DATA"),
    Option(
        "--group-pattern",
        "a regular expression that finds a file's group, such as a patient, in its name",
        metavar="REGEX",
    ),
    Option("--folds", "say how that many folds would divide the classes", metavar="K", type=int),
    Option("--fix", "write a cleaned list of the files", metavar="FILE.csv"),
    Option("--report", "write a page with the pictures", metavar="FILE.html"),
    Option("--all", "name every file, not the first few"),
    Option("--json", "print one JSON object"),
)
MAX_ITEMS = 5
_MARKS = {"error": "x", "warning": "!", "note": "-"}


def run(tokens: Sequence[str]) -> int:
    """Run the action and return its exit status."""
    asked = parse_options("data check", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.data.check.check import check
    from vitral.data.check.fix import cleaned_rows, folds_of
    from vitral.data.datasets.names import data_name
    from vitral.files.atomic import write_text
    from vitral.files.rows import csv_text

    _check_outputs([asked.fix, asked.report], [asked.data, asked.against])
    data = _open(asked.data, asked.data_dir, group_pattern=asked.group_pattern)
    other = _open(asked.against, asked.data_dir) if asked.against else None
    found = check(data, against=other)
    record = found.record(name=data_name(asked.data))
    if asked.folds is not None:
        usable = data.usable.nonzero()[0].tolist()
        folds = folds_of(data, usable, folds=asked.folds, groups=data.listing.groups)
        record["folds"] = _fold_counts(data, usable, folds.tolist(), num_folds=asked.folds)
    if asked.fix:
        rows = cleaned_rows(found, Path(asked.fix), against=other, folds=asked.folds or 0)
        columns = list(rows[0]) if rows else ["path", "label"]
        write_text(Path(asked.fix), csv_text(rows, columns=columns))
        record["fix"] = {"path": asked.fix, "num_images": len(rows)}
    if asked.report:
        from vitral.data.check.pictures import pictures_of
        from vitral.figures.check_page import check_page

        write_text(Path(asked.report), check_page(record, pictures_of(found)))
    print(json.dumps(record, ensure_ascii=False) if asked.json else _told(record, asked.all))
    return 0 if found.is_good else 3


def _check_outputs(paths: Sequence[str | None], sources: Sequence[str | None]) -> None:
    """Refuse to write where there is no folder, or where the data lies."""
    from vitral.data.kinds import IMAGE_SUFFIXES
    from vitral.errors import RequestError

    data = [Path(source).resolve() for source in sources if source]
    for path in (Path(own).resolve() for own in paths if own):
        if not path.parent.is_dir():
            raise RequestError(f"{path}: there is no such folder")
        if path.suffix.lower() in IMAGE_SUFFIXES or any(
            path == own or own in path.parents for own in data
        ):
            raise RequestError(f"{path} would change the data: give another path")


def _open(data: str, directory: str | None, *, group_pattern: str | None = None) -> "CheckedData":
    from vitral.cli.progress import progress
    from vitral.data.check.checked import open_checked
    from vitral.data.datasets.names import is_published

    with progress(f"looking at {data}") as report:
        return open_checked(
            data,
            directory=directory if is_published(data) else None,
            group_pattern=group_pattern,
            report_progress=report,
        )


def _fold_counts(
    data: "CheckedData", numbers: list[int], folds: list[int], *, num_folds: int
) -> dict[str, list[int]]:
    """Return the number of images of each class in each fold."""
    counts: dict[str, list[int]] = {}
    for number, fold in zip(numbers, folds, strict=True):
        counts.setdefault(data.label(number), [0] * num_folds)[fold] += 1
    return dict(sorted(counts.items()))


def _told(record: dict[str, Any], everything: bool) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in record["splits"].items())
    lines = [f"data: {record['name']}: {record['num_images']:,} usable images ({splits})"]
    for problem in record["problems"]:
        lines.append(f"{_MARKS[problem['weight']]} {problem['what']}")
        items = problem["items"] if everything else problem["items"][:MAX_ITEMS]
        for item in items:
            said = " = ".join(item["files"]) + (" " if item["files"] and item["detail"] else "")
            detail = f"({item['detail']})" if item["files"] and item["detail"] else item["detail"]
            lines.append(f"    {said}{detail}")
        rest = problem["count"] - len(items)
        if rest:
            lines.append(f"    and {rest:,} more: --all names them")
    if "folds" in record:
        lines.append("folds: images of each class")
        lines += [f"    {name}: {counts}" for name, counts in record["folds"].items()]
    if "fix" in record:
        fix = record["fix"]
        lines.append(f"fixed: {fix['path']} lists {fix['num_images']:,} images; train on it")
    return "\n".join([*lines, f"verdict: {record['verdict']}"])
