import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.result_rows import result_row, result_rows

from vitral.errors import RequestError
from vitral.figures.results_table import (
    HEADINGS,
    PAPER_COLUMNS,
    aligned,
    csv_columns,
    filter_results,
    format_rows,
    markdown,
    record,
    result_cells,
    without_empty_columns,
)
from vitral.files.results import ResultRow, row_from_record

JSON_FIELDS = ("settings", "interval", "controls", "value", "num_examples", "seed")


def cells_of(*rows: ResultRow) -> list[dict[str, str]]:
    headings, *cells = result_cells(rows)
    return [dict(zip(headings, row, strict=True)) for row in cells]


def test_a_row_is_told_in_percent_with_all_that_it_is_to_be_read_with() -> None:
    [cells] = cells_of(result_row())
    assert cells == {
        "model": "ViT-B/16",
        "data": "cifar10 test",
        "protocol": "finetune/paper",
        "metric": "accuracy",
        "value": "90.0 %",
        "interval": "89.4 to 90.6 % over images",
        "n": "10,000",
        "seed": "0",
        "controls": "pixels 40.0 %, chance 10.0 %",
        "paper": "99.0 % (Table 5, ImageNet-21k)",
        "time": "2026-11-20 10:00",
    }


def test_a_loss_is_no_percentage() -> None:
    row = result_row(metric="loss", value=2.25, interval=(2, 2.5), controls={"chance": 4.6})
    [cells] = cells_of(row)
    assert (cells["value"], cells["interval"]) == ("2.250", "2.000 to 2.500 over images")
    assert cells["controls"] == "chance 4.600"


def test_seeds_and_an_unusual_precision_are_said() -> None:
    [cells] = cells_of(
        result_row(seed=[1, 2], interval_over="seeds", precision="bfloat16", protocol="knn")
    )
    assert cells["seed"] == "1, 2"
    assert cells["interval"].endswith("over seeds")
    assert cells["protocol"] == "knn, bfloat16"


def test_models_of_one_name_are_told_apart() -> None:
    other = result_row(weights="f" * 32, path="")
    assert [row["model"] for row in cells_of(result_row(), other, result_row(model="x"))] == [
        "ViT-B/16 (runs/b16)",
        "ViT-B/16 (ffffffff)",
        "x",
    ]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["b=2", "b=3"]),
        ({"a": {"b": 1}}, {}, ["a.b=1", ""]),
        ({"a": None}, {}, ["a=null", ""]),
        ({"shots": 5}, {"shots": 5}, ["shots=5", "shots=5"]),
        ({str(n): "x" for n in range(6)}, {}, ["0=x, 1=x, 2=x, 3=x, and 2 more", ""]),
    ],
)
def test_settings_in_which_rows_differ_are_shown(
    first: dict[str, Any], second: dict[str, Any], told: list[str]
) -> None:
    rows = [result_row(settings=first), result_row(settings=second)]
    unlike = result_row(data="pets", settings={"other": 1})
    assert [row.get("settings", "") for row in cells_of(*rows, unlike)] == [*told, ""]


def test_columns_that_say_nothing_are_left_out() -> None:
    row = result_row(model="x", controls={}, interval=None, interval_over=None)
    headings = format_rows([row]).splitlines()[0].split()
    assert headings == ["model", "data", "protocol", "metric", "value", "n", "seed"]
    assert "time" in format_rows([row], with_time=True)
    assert set(headings) < set(HEADINGS)


def test_markdown_has_the_same_cells() -> None:
    rows = [result_row(), result_row(model="a|b")]
    lines = format_rows(rows, format="markdown", with_time=True).splitlines()
    read = [line.strip("| ").replace(r"\|", "!").split(" | ") for line in lines]
    assert set(read.pop(1)) == {"---"}
    assert [[cell.replace("!", "|") for cell in row] for row in read] == [
        list(row) for row in result_cells(rows)
    ]


# A carriage return alone is no text that CSV gives back.
fit_for_csv = result_rows().filter(lambda row: "\r" not in "".join(map(str, vars(row).values())))


def row_of_csv(line: dict[str, str]) -> ResultRow:
    """Read a row of CSV: what is no text is JSON, and none is empty."""
    texts = {name: cell for name, cell in line.items() if name not in PAPER_COLUMNS}
    plain = {name: json.loads(line[name]) if line[name] else None for name in JSON_FIELDS}
    over = line["interval_over"] or None
    return row_from_record(texts | plain | {"interval_over": over})


@given(st.lists(fit_for_csv, min_size=1, max_size=3))
@settings(deadline=None, max_examples=25)
def test_csv_has_every_field_in_full(rows: list[ResultRow]) -> None:
    text = format_rows(rows, format="csv") + "\n"
    assert [row_of_csv(line) for line in csv.DictReader(io.StringIO(text, newline=""))] == rows


def test_csv_names_the_most_alike_published_figure() -> None:
    text = format_rows([result_row(), result_row(model="x")], format="csv")
    first, second = csv.DictReader(io.StringIO(text))
    assert tuple(first) == csv_columns()
    assert [first[name] for name in PAPER_COLUMNS] == ["0.9895", "Table 5", "imagenet21k"]
    assert [second[name] for name in PAPER_COLUMNS] == ["", "", ""]


def test_json_has_every_published_figure_with_its_source() -> None:
    as_json = record(result_row(pretraining=""))
    assert [paper["value"] for paper in as_json["paper"]] == [98.13, 98.95, 99.0]
    del as_json["paper"]
    assert row_from_record(as_json) == result_row(pretraining="")


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


ROWS = [
    result_row(),
    result_row(model="R50x1+ViT-B/16", path="runs/birds", time="2026-11-21T10:00:00Z"),
    result_row(model="ViT-g/14", data="vtab-dtd", protocol="vtab", path=""),
    result_row(model="ViT-G/14", protocol="knn", metric="f1_macro", path=""),
    result_row(model="my model", data="photos", protocol="finetune", path=""),
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"model": "vit_base_patch16_224"}, [0]),
        ({"model": "r50+vit_b16"}, [1]),
        ({"model": "b16"}, [0, 1]),
        ({"model": "ViT-g/14"}, [2]),
        ({"model": "vit_G14"}, [3]),
        ({"model": "My-Model"}, [4]),
        ({"model": "birds"}, [1]),
        ({"data": "CIFAR_10"}, [0, 1, 3]),
        ({"data": "VTAB_dtd"}, [2]),
        ({"protocol": "finetune"}, [0, 1, 4]),
        ({"protocol": "finetune/paper"}, [0, 1]),
        ({"metric": "f1-macro"}, [3]),
        ({"since": "2026-11-21"}, [1]),
        ({"since": "2026-11-20T12:00:00+02:00"}, [0, 1, 2, 3, 4]),
        ({"since": "2026-11-20T10:00:01Z"}, [1]),
        ({"model": "b16", "since": "2026-11-01", "protocol": "finetune"}, [0, 1]),
    ],
)
def test_rows_are_chosen_by_what_is_asked_for(wanted: dict[str, Any], found: list[int]) -> None:
    assert filter_results(ROWS, **wanted) == [ROWS[number] for number in found]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"model": "vit-l/16"}, "no result has --model vit-l/16: did you mean"),
        ({"data": "cifar100"}, "no result has --data cifar100: did you mean 'cifar10'?"),
        ({"protocol": "fine"}, "no result has --protocol fine: did you mean 'finetune'?"),
        ({"metric": "xyz"}, "no result has --metric xyz: use one of accuracy, f1_macro"),
        ({"data": "photos", "protocol": "knn"}, "no result has --protocol knn and the rest too"),
        ({"since": "2027-01-01"}, "no result is as new as --since 2027-01-01: give an earlier"),
        ({"since": "yesterday"}, "--since yesterday: give a day or time, such as 2026-11-26"),
    ],
)
def test_what_finds_nothing_is_named(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        filter_results(ROWS, **wanted)
