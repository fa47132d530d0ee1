import re

from hypothesis import given
from hypothesis import strategies as st

from vitral.figures.text_table import aligned, markdown, without_empty_columns

cells = st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Zl", "Zp", "Cc"]))
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=4)
)


def read_markdown(text: str) -> list[list[str]]:
    """Read a Markdown table by its rules: a cell ends at a sign that no backslash takes away."""
    rows = [line[2:-2] for number, line in enumerate(text.split("\n")) if number != 1]
    parts = [re.findall(r"((?:\\.|[^\\|])*?)(?: \| |$)", row) for row in rows]
    return [[re.sub(r"\\(.)", r"\1", cell) for cell in row[:-1] or row] for row in parts]


@given(tables)
def test_markdown_gives_back_its_cells(table: list[list[str]]) -> None:
    text = markdown(table)
    assert len(text.split("\n")) == len(table) + 1
    filled = [[f"{cell}x" for cell in row] for row in table]
    assert read_markdown(markdown(filled)) == filled


def test_a_line_break_does_not_end_a_row_of_markdown() -> None:
    assert markdown([["a"], ["b\nc"]]) == "| a |\n| --- |\n| b c |"


@given(tables)
def test_columns_are_aligned(table: list[list[str]]) -> None:
    lines = aligned(table).split("\n")
    starts = [sum(max(map(len, column)) + 2 for column in list(zip(*table, strict=True))[:number])
              for number in range(len(table[0]))]  # fmt: skip
    for row, line in zip(table, lines, strict=True):
        assert all(line[start : start + len(cell)] == cell.rstrip() or line.startswith(cell, start)
                   for start, cell in zip(starts, row, strict=True))  # fmt: skip


def test_columns_with_a_heading_alone_are_left_out() -> None:
    rows = [("a", "b", "c"), ("1", "", ""), ("2", "", "3")]
    assert without_empty_columns(rows) == [("a", "c"), ("1", ""), ("2", "3")]
