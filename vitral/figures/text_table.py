"""Rows of text as a table: aligned for a terminal, or Markdown."""

from collections.abc import Sequence

Cells = Sequence[Sequence[str]]


def aligned(rows: Cells) -> str:
    """Return rows with aligned columns, two spaces apart; the first row holds the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Cells) -> str:
    """Return rows as a Markdown table; what would end a cell or a line is escaped."""
    headings, *rest = rows
    lines = [headings, ["---"] * len(headings), *rest]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").split())


def without_empty_columns(rows: Cells) -> list[tuple[str, ...]]:
    """Return rows without the columns that have a heading alone."""
    _, *rest = rows
    kept = [number for number in range(len(rows[0])) if any(row[number] for row in rest)]
    return [tuple(row[number] for number in kept) for row in rows]
