import json

import pytest
from result_rows import result_row

from vitral.cli.main import main
from vitral.figures.results_average import average_cells, averages
from vitral.files.results import append_result
from vitral.spec.paper_results import AVERAGE_FIVE, read_paper_results


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
    assert [own["protocol"] for own in found] == ["probe", "fewshot, 5 shots"]


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
