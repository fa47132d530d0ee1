"""Rows in files: JSON lines that survive a killed process, and CSV."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vitral.files.atomic import write_text

Row = dict[str, Any]


def append_row(path: Path, row: Row) -> None:
    """Append one row as a line of JSON; first end a line that a killed process left incomplete."""
    line = json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape") + b"\n"
    # Unbuffered, so that a row is a single write and does not mix with those of other processes.
    with path.open("ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        while line:
            line = line[file.write(line) :]


def read_rows(path: Path) -> list[Row]:
    """Read rows without an incomplete last line; if there is no file, return no rows."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")  # an incomplete line may end within a character
    return [json.loads(line) for line in lines[:-1]]


def salvage_rows(path: Path) -> tuple[list[Row], int]:
    """Read the valid rows, and count the lines that are not; if there is no file, return none."""
    if not path.exists():
        return [], 0
    rows: list[Row] = []
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line.decode("utf-8", errors="surrogateescape"))
            rows += [row] if isinstance(row, dict) else []
    return rows, len(lines) - len(rows)


def keep_rows(path: Path, wanted: Callable[[Row], bool]) -> None:
    """Remove all but the wanted rows from a file."""
    if path.exists():
        rows = [row for row in read_rows(path) if wanted(row)]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def csv_text(rows: Iterable[Row], *, columns: Sequence[str]) -> str:
    """Return rows as CSV with the given columns; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: row.get(column, "") for column in columns} for row in rows)
    return text.getvalue()
