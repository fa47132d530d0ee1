"""`vitral data info`, `vitral data check` and `vitral data pack`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.console import progress
from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options
from vitral.errors import RequestError, nearest

if TYPE_CHECKING:
    from vitral.data.check.checked import CheckedData


INFO_DESCRIPTION = (
    "Say what a source of images holds: classes, splits, kinds of files, what is skipped."
)
INFO_OPTIONS = (
    Option(
        "data",
        "a folder, an archive, a list, shards, tables, arrays or a name, as for `vitral train`",
        metavar="DATA",
        required=True,
    ),
    DATA_DIR_OPTION,
    Option("--all", "every class, however many there are"),
    Option("--json", "print one JSON object"),
)
MAX_CLASSES = 30
"""Number of classes listed without --all."""


def info(tokens: Sequence[str]) -> int:
    """Run `vitral data info` and return its exit status."""
    args = parse_options("data info", INFO_OPTIONS, tokens, description=INFO_DESCRIPTION)
    from vitral.config.run import DataSettings
    from vitral.data.dataset import open_dataset
    from vitral.data.datasets.names import data_name
    from vitral.data.report import data_report, describe_report

    settings = DataSettings(source=args.data, directory=args.data_dir or "", validation_share=0)
    report = data_report(open_dataset(args.data, settings=settings), name=data_name(args.data))
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
        return 0
    print("\n".join(describe_report(report)))
    print(_table(report, everything=args.all))
    if report["skipped"]["count"]:
        print("every skipped file stands in the report of --json, up to 20", file=sys.stderr)
    return 0


def _table(report: dict[str, Any], *, everything: bool) -> str:
    """Return a table of the number of images per class and split."""
    splits = report["splits"]
    shown = report["classes"] if everything else report["classes"][:MAX_CLASSES]
    width = max(len("class"), *map(len, shown))
    lines = ["  ".join([f"{'class':<{width}}", *(f"{name:>10}" for name in splits)])]
    for number, name in enumerate(shown):
        counts = (f"{part['per_class'][number]:>10,}" for part in splits.values())
        lines.append("  ".join([f"{name:<{width}}", *counts]))
    rest = len(report["classes"]) - len(shown)
    return "\n".join([*lines, *([f"and {rest:,} more: --all lists them"] if rest else [])])


CHECK_DESCRIPTION = (
    "Find what is wrong with images, labels and splits before it costs a training. Every file is "
    "decoded once; nothing is changed. Exit status 3: something would make training or score wrong."
)
CHECK_OPTIONS = (
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


def check(tokens: Sequence[str]) -> int:
    """Run `vitral data check` and return its exit status."""
    args = parse_options("data check", CHECK_OPTIONS, tokens, description=CHECK_DESCRIPTION)
    from vitral.data.check.check import check as check_data
    from vitral.data.check.fix import cleaned_rows, folds_of
    from vitral.data.datasets.names import data_name
    from vitral.files.atomic import write_text
    from vitral.files.rows import csv_text

    _check_outputs([args.fix, args.report], [args.data, args.against])
    data = _open(args.data, args.data_dir, group_pattern=args.group_pattern)
    other = _open(args.against, args.data_dir) if args.against else None
    found = check_data(data, against=other)
    record = found.record(name=data_name(args.data))
    if args.folds is not None:
        usable = data.usable.nonzero()[0].tolist()
        folds = folds_of(data, usable, folds=args.folds, groups=data.listing.groups)
        record["folds"] = _fold_counts(data, usable, folds.tolist(), num_folds=args.folds)
    if args.fix:
        rows = cleaned_rows(found, Path(args.fix), against=other, folds=args.folds or 0)
        columns = list(rows[0]) if rows else ["path", "label"]
        write_text(Path(args.fix), csv_text(rows, columns=columns))
        record["fix"] = {"path": args.fix, "num_images": len(rows)}
    if args.report:
        from vitral.data.check.check import pictures_of
        from vitral.figures.check_page import check_page

        write_text(Path(args.report), check_page(record, pictures_of(found)))
    print(json.dumps(record, ensure_ascii=False) if args.json else _format(record, args.all))
    return 0 if found.is_good else 3


def _check_outputs(paths: Sequence[str | None], sources: Sequence[str | None]) -> None:
    """Refuse output paths in missing folders or inside the data."""
    from vitral.data.file_types import IMAGE_SUFFIXES

    roots = [Path(source).resolve() for source in sources if source]
    for path in (Path(name).resolve() for name in paths if name):
        if not path.parent.is_dir():
            raise RequestError(f"{path}: there is no such folder")
        if path.suffix.lower() in IMAGE_SUFFIXES or any(
            path == root or root in path.parents for root in roots
        ):
            raise RequestError(f"{path} would change the data: give another path")


def _open(data: str, directory: str | None, *, group_pattern: str | None = None) -> "CheckedData":
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


def _format(record: dict[str, Any], everything: bool) -> str:
    splits = ", ".join(f"{count:,} {split}" for split, count in record["splits"].items())
    lines = [f"data: {record['name']}: {record['num_images']:,} usable images ({splits})"]
    for problem in record["problems"]:
        lines.append(f"{_MARKS[problem['weight']]} {problem['what']}")
        items = problem["items"] if everything else problem["items"][:MAX_ITEMS]
        for item in items:
            files = " = ".join(item["files"]) + (" " if item["files"] and item["detail"] else "")
            detail = f"({item['detail']})" if item["files"] and item["detail"] else item["detail"]
            lines.append(f"    {files}{detail}")
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


PACK_DESCRIPTION = (
    "Write the images of any source into shards that are read fast and in any order: plain tars, "
    "each with an index and checksums. The same command goes on where it was stopped."
)
PACK_OPTIONS = (
    Option("data", "as for `vitral train`", metavar="DATA", required=True),
    DATA_DIR_OPTION,
    Option("--output", "the folder of the shards", metavar="DIR"),
    Option(
        "--resize",
        "shrink larger images to this many pixels on the shorter side; left out: keep their bytes",
        metavar="N",
        type=int,
    ),
    Option(
        "--quality", "of the JPEGs that shrunk images become, 1 to 100; 90", metavar="N", type=int
    ),
    Option("--images-per-shard", "at most; 5000", metavar="N", type=int, default=5000),
    Option("--json", "print one JSON object"),
)


def pack(tokens: Sequence[str]) -> int:
    """Run `vitral data pack` and return its exit status.

    Raises:
        RequestError: no output, or a setting without effect.
    """
    args = parse_options("data pack", PACK_OPTIONS, tokens, description=PACK_DESCRIPTION)
    from vitral.config.run import DataSettings
    from vitral.data.dataset import open_dataset
    from vitral.data.datasets.names import data_name
    from vitral.data.pack import pack as pack_data
    from vitral.data.pack_shard import PackSettings

    if not args.output:
        raise RequestError("--output is missing: give the folder that the shards shall go to")
    if args.quality is not None and not args.resize:
        raise RequestError(
            f"--quality {args.quality} has no effect without --resize: images that are not shrunk "
            "keep their bytes"
        )
    settings = PackSettings(
        resize=args.resize or 0,
        quality=90 if args.quality is None else args.quality,
        images_per_shard=args.images_per_shard,
    )
    with progress("looking at the images") as report:
        how = DataSettings(source=args.data, directory=args.data_dir or "", validation_share=0)
        data = open_dataset(args.data, settings=how, report_progress=report)
    with progress("packing") as report:
        packed = pack_data(
            data, Path(args.output), settings, name=data_name(args.data), report_progress=report
        )
    if args.json:
        print(json.dumps(packed | {"path": args.output}, ensure_ascii=False))
        return 0
    counts = ", ".join(f"{count:,} {split}" for split, count in packed["splits"].items())
    total = sum(shard["bytes"] for shard in packed["shards"])
    print(f"packed    {counts} images into {len(packed['shards']):,} shards, {_size(total)}")
    print(f"images    {packed['images']}")
    if packed["num_skipped"]:
        print(f"left out  {packed['num_skipped']:,} files: {args.output}/skipped.csv says why")
    return 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


ACTIONS = {
    "info": (info, "say what a source of images holds"),
    "check": (check, "find what is wrong with images, labels and splits"),
    "pack": (pack, "write shards: tars with an index, smaller images if wanted"),
}


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status.

    Raises:
        RequestError: an unknown action.
    """
    if not tokens or tokens[0] in ("-h", "--help", "help"):
        known = "\n".join(f"  vitral data {name:<6} {what}" for name, (_, what) in ACTIONS.items())
        print(f"usage: vitral data ACTION DATA\n\n{known}")
        return 0
    if tokens[0] not in ACTIONS:
        raise RequestError(f"vitral data has no action {tokens[0]!r}{nearest(tokens[0], ACTIONS)}")
    return ACTIONS[tokens[0]][0](tokens[1:])
