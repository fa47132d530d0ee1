"""Rows of results in files: JSON lines that survive a kill, and CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vitral.files.atomic import write_text

Row = dict[str, Any]


def append_row(path: Path, row: Row) -> None:
    """Append one row as a line of JSON."""
    with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read rows, leaving out a last line that a kill cut short; no file, no rows."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")  # what was cut may end within a letter
    return [json.loads(line) for line in lines[:-1]]


def keep_rows(path: Path, wanted: Callable[[Row], bool]) -> None:
    """Cut a file of rows back to those wanted."""
    if path.exists():
        rows = [row for row in read_rows(path) if wanted(row)]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def csv_text(rows: Iterable[Row], *, columns: Sequence[str]) -> str:
    """Return rows as CSV with the given columns; what a row lacks is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: row.get(column, "") for column in columns} for row in rows)
    return text.getvalue()
