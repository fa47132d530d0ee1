import csv
import io
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.result_rows import result_row

from vitral.cli.main import main
from vitral.config.paper_results import AVERAGE_FIVE, read_paper_results
from vitral.figures.results_compare import (
    average_cells,
    averages,
    compare_results,
    comparison_record,
    format_comparisons,
)
from vitral.files.results import ResultRow, append_result


def model(name: str, low: float, high: float, **changes: Any) -> ResultRow:
    hash_of_name = name.encode().hex().ljust(32, "0")[:32]
    changes = {"weights": hash_of_name, "value": (low + high) / 2} | changes
    return result_row(**{"model": name, "interval": (low, high)} | changes)


ROWS = [model("a", 0.1, 0.3), model("b", 0.6, 0.8), model("c", 0.5, 0.7)]


def test_models_are_put_side_by_side_the_best_first() -> None:
    [comparison], num_alone = compare_results([*ROWS, model("d", 0, 1, data="pets")])
    assert num_alone == 1
    assert [row.model for row in comparison.rows] == ["b", "c", "a"]
    assert format_comparisons([comparison]).splitlines()[0] == (
        "cifar10 test, finetune/paper, accuracy"
    )
    lines = [line.split("  ") for line in format_comparisons([comparison]).splitlines()[2:]]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert [line[:6] for line in table] == [
        ["b", "70.0 %", "60.0 to 80.0 % over images", "10,000", "0", "best"],
        ["c", "60.0 %", "50.0 to 70.0 % over images", "10,000", "0", "-10.0 points"],
        ["a", "20.0 %", "10.0 to 30.0 % over images", "10,000", "0", "-50.0 points"],
    ]
    assert [line[6] for line in table[1:]] == ["overlap", "apart"]


@pytest.mark.parametrize(
    "changes",
    [{"data": "pets"}, {"split": "validation"}, {"protocol": "knn"}, {"metric": "f1"},
     {"settings": {"image_size": 385}}],
)  # fmt: skip
def test_what_differs_is_not_compared(changes: dict[str, Any]) -> None:
    assert compare_results([ROWS[0], model("x", 0.1, 0.3, **changes)]) == ([], 2)


def test_what_a_protocol_chose_for_each_model_keeps_none_apart() -> None:
    rows = [
        model(name, low, low + 0.1, settings={"l2_grid": [1, 10], "chosen": {"l2": l2}})
        for name, low, l2 in (("a", 0.1, 1), ("b", 0.2, 10))
    ]
    [comparison], num_alone = compare_results(rows)
    assert ([row.model for row in comparison.rows], num_alone) == (["b", "a"], 0)


def test_the_newest_row_of_the_same_weights_and_seed_counts() -> None:
    again = model("a", 0.2, 0.4)
    [comparison], _ = compare_results([*ROWS, again, model("a", 0.3, 0.5, seed=1)])
    assert again in comparison.rows
    assert ROWS[0] not in comparison.rows
    assert len(comparison.rows) == 4


def test_the_lowest_loss_is_the_best() -> None:
    rows = [model(name, low, low + 1, metric="loss") for name, low in (("a", 2), ("b", 1))]
    [comparison], _ = compare_results(rows)
    assert [row.model for row in comparison.rows] == ["b", "a"]
    assert "+1.000" in format_comparisons([comparison])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=2))
def test_intervals_overlap_where_they_share_a_point(ends: list[tuple[float, float]]) -> None:
    (a, b), (c, d) = map(sorted, ends)
    rows = [model("x", a, b, value=a), model("y", c, d, value=c)]
    [comparison], _ = compare_results(rows)
    share = any(a <= point <= b and c <= point <= d for point in (a, b, c, d))
    assert {comparison.overlap(row) for row in comparison.rows[1:]} == {share}


@pytest.mark.parametrize(
    "changes", [{"interval": None, "interval_over": None}, {"interval_over": "seeds"}]
)
def test_intervals_of_which_one_lacks_or_is_of_another_kind_are_not_compared(
    changes: dict[str, Any],
) -> None:
    for first, second in itertools.permutations([ROWS[0], model("x", 0.1, 0.3, **changes)]):
        [comparison], _ = compare_results([first, second])
        assert comparison.overlap(comparison.rows[1]) is None
        assert "not known" in format_comparisons([comparison])


def test_heads_tell_comparisons_of_different_settings_apart() -> None:
    other = {"settings": {"image_size": 224}}
    rows = [*ROWS[:2], model("x", 0, 1, **other), model("y", 0, 1, **other)]
    comparisons, _ = compare_results(rows)
    text = format_comparisons(comparisons, format="markdown")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "### cifar10 test, finetune/paper, image_size=384, accuracy",
        "### cifar10 test, finetune/paper, image_size=224, accuracy",
    ]
    assert text.count("| model | value |") == 2


def test_csv_and_json_have_the_differences() -> None:
    comparisons, _ = compare_results(ROWS)
    read = list(csv.DictReader(io.StringIO(format_comparisons(comparisons, format="csv"))))
    as_json = comparison_record(comparisons[0])
    assert (as_json["data"], as_json["settings"]) == ("cifar10", {"image_size": 384})
    assert [row["model"] for row in read] == [entry["model"] for entry in as_json["models"]]
    for row, entry in zip(read, as_json["models"], strict=True):
        assert float(row["difference"]) == entry["difference"]
        assert row["intervals_overlap"] == str(entry["intervals_overlap"])


def test_a_bfloat16_row_is_marked_beside_the_same_model_in_float32() -> None:
    [comparison], _ = compare_results([ROWS[0], model("a", 0.1, 0.2, precision="bfloat16")])
    assert "a, bfloat16" in format_comparisons([comparison])


def rows_of(values, **changes):
    return [result_row(data=data, value=value, interval=None, interval_over=None, **changes)
            for data, value in values.items()]  # fmt: skip


def table_6(model):
    """The paper's five figures of a model's row, as shares."""
    rows = [r for r in read_paper_results() if r.source == "Table 6" and r.model == model]
    first = [row for row in rows if row.epochs == rows[0].epochs]
    return {row.task: row.value / 100 for row in first if row.task in AVERAGE_FIVE}


@pytest.mark.parametrize(
    ("model", "mean"), [("ViT-B/32", 92.50), ("ViT-B/16", 94.08), ("R50x1", 89.33)]
)
def test_the_papers_five_give_its_average(model, mean):
    """Table 6's figures give paper.md's column, with the paper's own beside it."""
    rows = rows_of(table_6(model), model=model, protocol="finetune/paper", pretraining="jft300m")
    (record,) = averages(rows)
    assert record["name"] == "Average-5"
    assert 100 * record["value"] == pytest.approx(mean, abs=0.01)
    assert 100 * record["paper"] == pytest.approx(mean, abs=0.01)


def test_over_other_sets_it_is_called_the_mean_of_those():
    (record,) = averages(rows_of({"rsscn7": 0.5, "dtd10": 0.7}))
    assert record["name"] == "mean of rsscn7, dtd10"
    assert record["value"] == pytest.approx(0.6)
    assert record["paper"] is None
    headings, row = average_cells([record])
    assert dict(zip(headings, row, strict=True))["of"] == "rsscn7 50.0, dtd10 70.0"


def test_only_scores_of_one_kind_are_averaged():
    rows = [
        *rows_of({"a": 0.5, "b": 0.7}, protocol="probe"),
        *rows_of({"a": 0.1}, protocol="knn"),
        *rows_of({"a": 0.2, "b": 0.4}, protocol="fewshot", settings={"shots": 5}),
        *rows_of({"a": 0.3}, protocol="fewshot", settings={"shots": 10}),
        *rows_of({"vtab-dtd": 0.3, "vtab-pets": 0.3}, protocol="vtab"),
    ]
    found = averages(rows)
    assert [average["protocol"] for average in found] == ["probe", "fewshot, 5 shots"]


def test_a_mean_over_seeds_goes_before_a_run_and_a_later_row_before_an_earlier():
    rows = [
        *rows_of({"a": 0.5}, seed=(0, 1, 2)),
        *rows_of({"a": 0.9}, seed=0),
        *rows_of({"b": 0.1}, seed=0),
        *rows_of({"b": 0.3}, seed=0),
    ]
    (record,) = averages(rows)
    assert record["values"] == {"a": 0.5, "b": 0.3}


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.jsonl"
    for row in rows_of({"rsscn7": 0.5, "dtd10": 0.7}):
        append_result(path, row)
    return path


def test_the_command_prints_the_means(results, capsys):
    assert main(["results", "--results", str(results), "--average"]) == 0
    assert "mean of rsscn7, dtd10" in " ".join(capsys.readouterr().out.split())
    assert main(["results", "--results", str(results), "--average", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["averages"][0]["value"] == pytest.approx(0.6)
    assert main(["results", "--results", str(results), "--average", "--format", "markdown"]) == 0
    assert "| 60.0 % |" in capsys.readouterr().out
    assert main(["results", "--results", str(results), "--average", "--format", "csv"]) == 0
    assert "60.0 %" in capsys.readouterr().out


def test_there_may_be_nothing_to_average(tmp_path, capsys):
    append_result(tmp_path / "r.jsonl", result_row())
    assert main(["results", "--results", str(tmp_path / "r.jsonl"), "--average"]) == 0
    assert "no model has test scores of two data sets" in capsys.readouterr().err


def test_two_tables_at_once_are_refused(results, capsys):
    assert main(["results", "--results", str(results), "--average", "--compare"]) == 2
    assert "--average and --compare are two tables" in capsys.readouterr().err
