"""`vitral results`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.console import print_table
from vitral.cli.options import RESULTS_OPTION, Option, parse_options

if TYPE_CHECKING:
    from vitral.files.results import ResultRow

DESCRIPTION = (
    "List the results that were measured, newest last, with their controls and the paper's figure "
    "beside them."
)
WRITERS = ("evaluate", "finetune", "fewshot", "probe", "knn", "vtab")
"""The verbs that append rows."""
ENDINGS = {".md": "markdown", ".csv": "csv"}
OPTIONS = (
    Option("--model", "only this model: its name, or a part of its path", metavar="NAME"),
    Option("--data", "only this data set", metavar="NAME"),
    Option("--protocol", "only this protocol, such as knn or finetune", metavar="NAME"),
    Option("--metric", "only this metric, such as accuracy", metavar="NAME"),
    Option("--since", "only from this day or time on (UTC), such as 2026-11-26", metavar="TIME"),
    Option(
        "--compare",
        "put models side by side that were measured on the same data in the same way",
    ),
    Option(
        "--average",
        "each model's mean over data sets: Average-5 (Figure 5) over the paper's five",
    ),
    Option(
        "--format",
        "table, markdown or csv; left out: by --output's ending, else table",
        metavar="NAME",
        choices=("table", "markdown", "csv"),
    ),
    Option("--output", "a file; left out: standard output", metavar="FILE"),
    RESULTS_OPTION,
    Option("--json", "print one JSON object, with every field"),
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    args = parse_options("results", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.errors import RequestError

    if args.json and (args.output or args.format):
        raise RequestError("--json prints to standard output: leave --output and --format out")
    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise RequestError(f"--output {args.output}: there is no such folder")
    if args.average and args.compare:
        raise RequestError("--average and --compare are two tables: give one of them")
    rows = _rows(args)
    if not rows:
        if args.json:
            name = "averages" if args.average else "comparisons" if args.compare else "results"
            print(json.dumps({name: []}))
        return 0
    if args.average:
        return _average(args, rows)
    return (_compare if args.compare else _list)(args, rows)


def _rows(args: Any) -> "list[ResultRow]":
    """Return the requested rows; if the file has none, print so and return an empty list."""
    from vitral.errors import RequestError
    from vitral.figures.results_table import filter_results
    from vitral.files.results import read_results, results_path

    path = Path(args.results or results_path())
    verbs = f"`vitral {', '.join(WRITERS[:-1])}` and `{WRITERS[-1]}`"
    if args.results and not path.is_file():
        raise RequestError(f"--results {path}: there is no such file; {verbs} write one")
    rows, num_damaged = read_results(path)
    if num_damaged:
        lines = "1 line is" if num_damaged == 1 else f"{num_damaged:,} lines are"
        print(f"note: {lines} no row of results in {path}: left out", file=sys.stderr)
    if not rows:
        print(f"no results in {path}: {verbs} write rows there", file=sys.stderr)
        return []
    return filter_results(
        rows,
        model=args.model,
        data=args.data,
        protocol=args.protocol,
        metric=args.metric,
        since=args.since,
    )


def _list(args: Any, rows: "list[ResultRow]") -> int:
    from vitral.figures.results_table import format_rows, record, result_cells

    if args.json:
        print(json.dumps({"results": [record(row) for row in rows]}, ensure_ascii=False))
    elif args.output or args.format:
        _write(args, format_rows(rows, format=_format(args), with_time=True))
    else:
        _print(result_cells(rows))
    return 0


def _compare(args: Any, rows: "list[ResultRow]") -> int:
    from vitral.figures.results_compare import (
        compare_results,
        comparison_cells,
        comparison_heads,
        comparison_record,
        format_comparisons,
    )

    comparisons, num_alone = compare_results(rows)
    if num_alone:
        have = "1 result has" if num_alone == 1 else f"{num_alone:,} results have"
        print(
            f"{have} no other of the same data, split, protocol and settings: not compared",
            file=sys.stderr,
        )
    if args.json:
        records = [comparison_record(comparison) for comparison in comparisons]
        print(json.dumps({"comparisons": records}, ensure_ascii=False))
    elif args.output or args.format:
        _write(args, format_comparisons(comparisons, format=_format(args)))
    else:
        heads = comparison_heads(comparisons)
        for number, (head, comparison) in enumerate(zip(heads, comparisons, strict=True)):
            print(f"\n{head}" if number else head)
            _print(comparison_cells(comparison))
    return 0


def _average(args: Any, rows: "list[ResultRow]") -> int:
    from vitral.figures.results_compare import average_cells, averages
    from vitral.figures.results_table import aligned, markdown
    from vitral.files.rows import csv_text

    records = averages(rows)
    if not records:
        print("no model has test scores of two data sets by one protocol", file=sys.stderr)
    if args.json:
        print(json.dumps({"averages": records}, ensure_ascii=False))
    elif records and (args.output or args.format):
        cells = average_cells(records)
        headings, *rest = cells
        table = [dict(zip(headings, row, strict=True)) for row in rest]
        text = {
            "table": lambda: aligned(cells),
            "markdown": lambda: markdown(cells),
            "csv": lambda: csv_text(table, columns=headings).removesuffix("\n"),
        }[_format(args)]()
        _write(args, text)
    elif records:
        _print(average_cells(records))
    return 0


def _format(args: Any) -> str:
    ending = Path(args.output).suffix.lower() if args.output else ""
    return args.format or ENDINGS.get(ending, "table")


def _write(args: Any, text: str) -> None:
    """Write text to `--output`, or print it."""
    from vitral.files.atomic import write_text

    if args.output:
        write_text(Path(args.output), f"{text}\n")
    else:
        print(text)


def _print(cells: list[tuple[str, ...]]) -> None:
    headings, *rows = cells
    numbers = ("value", "n", "to the best")
    print_table(headings, rows, tell=lambda row: _paragraph(headings, row), right=numbers)


def _paragraph(headings: tuple[str, ...], row: tuple[str, ...]) -> str:
    """Format a row as the paragraph below its first cell."""
    facts = zip(headings[1:], row[1:], strict=True)
    return "; ".join(f"{heading} {cell}" for heading, cell in facts if cell)
