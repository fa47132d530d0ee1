"""`vitral data info`."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options

DESCRIPTION = "Say what a source of images holds: classes, splits, kinds of files, what is skipped."
OPTIONS = (
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
"""Classes that are listed without --all: the first ones."""


def run(tokens: Sequence[str]) -> int:
    """Run the action and return its exit status."""
    asked = parse_options("data info", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.data.datasets.names import data_name
    from vitral.data.images import open_images
    from vitral.data.report import data_report, describe_report
    from vitral.spec.run import DataSettings

    settings = DataSettings(source=asked.data, directory=asked.data_dir or "", validation_share=0)
    report = data_report(open_images(asked.data, settings=settings), name=data_name(asked.data))
    if asked.json:
        print(json.dumps(report, ensure_ascii=False))
        return 0
    print("\n".join(describe_report(report)))
    print(_table(report, everything=asked.all))
    if report["skipped"]["count"]:
        print("every skipped file stands in the report of --json, up to 20", file=sys.stderr)
    return 0


def _table(report: dict[str, Any], *, everything: bool) -> str:
    """Return a row a class with its images in each split."""
    splits = report["splits"]
    shown = report["classes"] if everything else report["classes"][:MAX_CLASSES]
    width = max(len("class"), *map(len, shown))
    lines = ["  ".join([f"{'class':<{width}}", *(f"{name:>10}" for name in splits)])]
    for number, name in enumerate(shown):
        counts = (f"{part['per_class'][number]:>10,}" for part in splits.values())
        lines.append("  ".join([f"{name:<{width}}", *counts]))
    rest = len(report["classes"]) - len(shown)
    return "\n".join([*lines, *([f"and {rest:,} more: --all lists them"] if rest else [])])
