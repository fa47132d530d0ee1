"""`vitral results`: what it prints, where, and what it refuses."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from support.result_rows import result_row

from vitral.cli.main import main
from vitral.files.results import RESULTS_PATH, append_result

pytestmark = pytest.mark.usefixtures("results_in_runs")

ROWS = [
    result_row(time="2026-11-22T10:00:00+00:00"),
    result_row(model="ViT-L/16", weights="f" * 32, value=0.95, interval=(0.945, 0.955)),
    result_row(data="photos"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with results."""
    monkeypatch.chdir(tmp_path)
    for row in ROWS:
        append_result(RESULTS_PATH, row)
    return tmp_path


Captured = pytest.CaptureFixture[str]


def test_rows_are_listed_newest_last(place: Path, capsys: Captured) -> None:
    assert main(["results"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "ViT-L/16", "ViT-B/16", "ViT-B/16"]
    assert lines[-1].endswith("2026-11-22 10:00")
    assert "99.0 % (Table 5, ImageNet-21k)" in lines[-1]
    assert captured.err == ""


def test_filters_choose_rows(place: Path, capsys: Captured) -> None:
    tokens = ["--model", "vit_b16", "--data=cifar10", "protocol=finetune", "--metric", "accuracy"]
    assert main(["results", *tokens, "--since", "2026-11-21", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["results"]
    assert row["time"] == ROWS[0].time
    assert row["paper"][0]["source"] == "Table 5"


def test_models_are_compared(place: Path, capsys: Captured) -> None:
    assert main(["results", "--compare"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("cifar10 test, finetune/paper, accuracy\nmodel")
    assert "-5.0 points" in captured.out
    assert "1 result has no other of the same data, split" in captured.err
    assert main(["results", "--compare", "--json"]) == 0
    [comparison] = json.loads(capsys.readouterr().out)["comparisons"]
    assert [model["model"] for model in comparison["models"]] == ["ViT-L/16", "ViT-B/16"]


def test_nothing_to_compare_is_said(place: Path, capsys: Captured) -> None:
    assert main(["results", "--compare", "--data", "photos"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 result has no other" in captured.err


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        (["--output", "r.md"], "| model |"),
        (["--output", "r.csv"], "model,weights,"),
        (["--output", "r.txt"], "model     data"),
        (["--output", "r.txt", "--format", "csv"], "model,weights,"),
        (["--output", "r.md", "--compare"], "### cifar10 test"),
        (["--output", "r.csv", "--compare"], "model,weights,"),
        (["--output", "r.txt", "--compare"], "cifar10 test, finetune/paper, accuracy\nmodel"),
    ],
)
def test_a_file_has_the_format_of_its_ending(
    place: Path, tokens: list[str], start: str, capsys: Captured
) -> None:
    assert main(["results", *tokens]) == 0
    text = (place / tokens[1]).read_text()
    assert text.startswith(start)
    assert text.endswith("\n")
    assert capsys.readouterr().out == ""


def test_a_format_goes_to_standard_output(place: Path, capsys: Captured) -> None:
    assert main(["results", "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["data"] for row in rows] == ["cifar10", "photos", "cifar10"]


@pytest.mark.parametrize(
    ("columns", "tokens"), [(70, []), (200, []), (70, ["--compare"]), (200, ["--compare"])]
)
def test_a_terminal_shows_what_fits(
    place: Path,
    columns: int,
    tokens: list[str],
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    assert main(["results", *tokens]) == 0
    stdout = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, stdout.splitlines())) <= columns
    words = " ".join(stdout.split())
    assert "95.0 %" in words
    assert ("n 10,000;" in words) == (columns == 70)


def test_a_damaged_line_is_counted_and_stays(place: Path, capsys: Captured) -> None:
    with RESULTS_PATH.open("a") as file:
        file.write('{"half": ')
    before = RESULTS_PATH.read_bytes()
    assert main(["results"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    assert captured.err == f"note: 1 line is no row of results in {RESULTS_PATH}: left out\n"
    assert RESULTS_PATH.read_bytes() == before
    with RESULTS_PATH.open("a") as file:
        file.write("\nworse\n")
    assert main(["results"]) == 0
    assert "note: 2 lines are no row" in capsys.readouterr().err


@pytest.mark.parametrize("exists", [False, True])
def test_without_results_it_says_who_writes_them(
    tmp_path: Path, exists: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if exists:
        RESULTS_PATH.parent.mkdir()
        RESULTS_PATH.touch()
    verbs = "`vitral evaluate, finetune, fewshot, probe, knn` and `vtab`"
    message = f"no results in runs/results.jsonl: {verbs}"
    for tokens, out in ([], ""), (["--json"], '{"results": []}\n'), (
        ["--json", "--compare"], '{"comparisons": []}\n',
    ):  # fmt: skip
        assert main(["results", *tokens]) == 0
        captured = capsys.readouterr()
        assert captured.out == out
        assert captured.err.startswith(message)
        assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (
            ["--results", "nowhere.jsonl"],
            "--results nowhere.jsonl: there is no such file; `vitral e",
        ),
        (["--modle", "x"], "there is no option --modle: did you mean 'model'?"),
        (["--format", "html"], "argument --format: invalid choice: 'html'"),
        (["--json", "--format", "csv"], "leave --output and --format out"),
        (["--json", "--output", "x.csv"], "leave --output and --format out"),
        (["--output", "nowhere/r.md"], "--output nowhere/r.md: there is no such folder"),
        (["--data", "cifar100"], "no result has --data cifar100: did you mean 'cifar10'?"),
        (["cifar10"], "unrecognized arguments: cifar10: see `vitral results --help`"),
    ],
)
def test_mistakes_end_with_one_line(
    place: Path, tokens: list[str], said: str, capsys: Captured
) -> None:
    assert main(["results", *tokens]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.startswith("vitral: ")
    assert captured.err.count("\n") == 1


def test_another_file_is_read(place: Path, capsys: Captured) -> None:
    append_result(place / "other.jsonl", result_row(model="x"))
    assert main(["results", "--results", "other.jsonl", "--json"]) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)["results"]] == ["x"]
