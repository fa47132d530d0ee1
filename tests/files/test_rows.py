import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitral.files.rows import append_row, csv_text, keep_rows, read_rows

values = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.none(), st.booleans())
rows = st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=4)
anywhere = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40
)


def write_rows(path: Path, written: list[dict[str, Any]]) -> None:
    path.unlink(missing_ok=True)
    for row in written:
        append_row(path, row)


@given(written=rows)
@anywhere
def test_rows_come_back_as_they_were_appended(
    tmp_path: Path, written: list[dict[str, Any]]
) -> None:
    write_rows(tmp_path / "rows", written)
    assert read_rows(tmp_path / "rows") == written


@given(written=rows.filter(bool), share=st.floats(0, 1, exclude_max=True))
@anywhere
def test_a_last_line_that_was_cut_short_is_left_out(
    tmp_path: Path, written: list[dict[str, Any]], share: float
) -> None:
    path = tmp_path / "rows"
    write_rows(path, written[:-1])
    whole = path.read_bytes() if path.exists() else b""
    append_row(path, written[-1])
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line[: int(share * (len(line) - 1))])
    keep_rows(path, lambda row: True)
    append_row(path, {"after": 1})
    assert read_rows(path) == [*written[:-1], {"after": 1}]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "rows") == []
    keep_rows(tmp_path / "rows", lambda row: True)
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("last", [0, 3, 5])
def test_rows_are_cut_back_to_those_wanted(tmp_path: Path, last: int) -> None:
    path = tmp_path / "rows"
    write_rows(path, [{"step": step} for step in range(1, 6)])
    keep_rows(path, lambda row: row["step"] <= last)
    assert read_rows(path) == [{"step": step} for step in range(1, last + 1)]


@given(texts=st.lists(st.text(st.characters(exclude_characters="\r\x00")), min_size=1))
def test_csv_has_the_columns_in_order_with_anything_in_them(texts: list[str]) -> None:
    text = csv_text([{"b": t, "extra": 1} for t in texts], columns=["a", "b"])
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read == [["a", "b"], *(["", t] for t in texts)]
