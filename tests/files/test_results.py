import json
import math
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.result_rows import WEIGHTS, result_row, result_rows

from vitral.errors import RequestError
from vitral.files.atomic import lock
from vitral.files.results import (
    ResultRow,
    append_result,
    keep_results,
    parsed_time,
    read_results,
    results_path,
    row_from_record,
)
from vitral.version import __version__

anywhere = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25
)


@given(rows=st.lists(result_rows(), max_size=4))
@anywhere
def test_rows_come_back_as_they_were_appended_oldest_first(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    path.unlink(missing_ok=True)
    for row in rows:
        append_result(path, row)
    read, num_damaged = read_results(path)
    assert num_damaged == 0
    assert read == sorted(rows, key=lambda row: parsed_time(row.time))


@given(cut=st.floats(0, 1, exclude_max=True))
@anywhere
def test_a_half_line_costs_only_itself(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "results.jsonl"
    path.unlink(missing_ok=True)
    append_result(path, result_row(model="first"))
    whole = path.read_bytes()
    append_result(path, result_row(model="killed"))
    line = path.read_bytes()[len(whole) :]
    half = line[: int(cut * (len(line) - 1))]
    path.write_bytes(whole + half)
    append_result(path, result_row(model="after"))
    rows, num_damaged = read_results(path)
    assert [row.model for row in rows] == ["first", "after"]
    assert num_damaged == bool(half)
    assert half in path.read_bytes()


def test_a_last_line_without_its_end_is_still_a_row(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, result_row())
    path.write_bytes(path.read_bytes().rstrip())
    append_result(path, result_row(model="after"))
    assert [row.model for row in read_results(path)[0]] == ["ViT-B/16", "after"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        b'"text"',
        json.dumps({"model": "x"}).encode(),
    ],
)
def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, result_row(model="a"))
    path.write_bytes(path.read_bytes() + line + b"\n\n")
    append_result(path, result_row(model="b"))
    rows, num_damaged = read_results(path)
    assert ([row.model for row in rows], num_damaged) == (["a", "b"], 1)


def test_a_row_that_can_not_be_is_counted_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, result_row())
    path.write_text(path.read_text().replace('"value": 0.9', '"value": 9.0'))
    assert read_results(path) == ([], 1)


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none.jsonl") == ([], 0)


def test_processes_that_append_at_once_lose_no_row(tmp_path: Path) -> None:
    """The rows are longer than the buffers of files and pipes."""
    path = tmp_path / "results.jsonl"
    code = (
        "import sys; from pathlib import Path; from support.result_rows import result_row\n"
        "from vitral.files.results import append_result\n"
        "for seed in range(25):\n"
        "    row = result_row(model=sys.argv[2], seed=seed, settings={'x': 'long ' * 20_000})\n"
        "    append_result(Path(sys.argv[1]), row)\n"
    )
    tests = str(Path(__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{code}", path, name]
        )
        for name in "abc"
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    rows, num_damaged = read_results(path)
    assert num_damaged == 0
    assert {(row.model, row.seed) for row in rows} == {(m, s) for m in "abc" for s in range(25)}
    assert len(rows) == 75


def test_a_row_waits_until_another_process_has_written_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with path.open("ab") as other:
        lock(other, wait=True)
        appending = threading.Thread(target=append_result, args=(path, result_row()))
        appending.start()
        appending.join(0.2)
        assert path.read_bytes() == b""
    appending.join(30)
    assert len(read_results(path)[0]) == 1


def test_a_name_that_is_no_text_survives(tmp_path: Path) -> None:
    append_result(tmp_path / "r", result_row(path="runs/\udcff"))
    assert read_results(tmp_path / "r")[0][0].path == "runs/\udcff"


def test_a_field_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_result(path, result_row())
    record = json.loads(path.read_text())
    assert row_from_record(record | {"later": 1}) == result_row()
    del record["seed"]
    with pytest.raises(
        RequestError, match="a row of results lacks 'seed': it needs model, weights"
    ):
        row_from_record(record)


def test_numbers_of_other_libraries_become_plain() -> None:
    row = result_row(value=np.float32(0.5), interval=[np.float64(0.25), 1], seed=[np.int64(1), 2],
                     num_examples=np.int32(7))  # fmt: skip
    assert (row.value, row.interval, row.seed, row.num_examples) == (0.5, (0.25, 1.0), (1, 2), 7)
    assert [type(row.value), type(row.num_examples)] == [float, int]
    assert result_row(settings={"size": (8, 9)}).settings == {"size": [8, 9]}


def test_a_loss_is_no_share() -> None:
    loss = result_row(metric="loss", value=2.3, interval=None, interval_over=None,
                      controls={"chance": 4.6})  # fmt: skip
    assert (loss.value, loss.controls) == (2.3, {"chance": 4.6})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": ""}, "model='': give text"),
        ({"precision": None}, "precision=None: give text"),
        ({"weights": "abc"}, "weights='abc': give the hash, 32 hex digits"),
        ({"value": 90.0}, "value=90.0: give a share, 0..1, for accuracy"),
        ({"value": math.nan}, "value=nan: give a share, 0..1, for accuracy"),
        ({"value": True}, "value=True: give a share"),
        ({"metric": "loss", "value": -1}, "value=-1: give 0 or more"),
        ({"num_examples": 0}, "num_examples=0: give a whole number, 1 or more"),
        ({"interval": (0.1, 0.2)}, "interval=(0.1, 0.2) does not hold value=0.9: give low and h"),
        ({"interval": (0.95, 0.99)}, "interval=(0.95, 0.99) does not hold value=0.9"),
        ({"interval": (0.9,)}, "interval=(0.9,): give low and high"),
        ({"interval": (0.1, 1.2)}, "interval=1.2: give a share"),
        ({"interval": None}, "interval=None with interval_over='images': give both, or neither"),
        ({"interval_over": "folds"}, "interval_over='folds': use one of images, seeds"),
        ({"seed": []}, "seed=[]: give a seed, or those that the mean is over"),
        ({"seed": -1}, "seed=-1: give a whole number, 0 or more"),
        ({"seed": [0.5]}, "seed=0.5: give a whole number"),
        ({"settings": [1]}, "settings=[1]: give values by name"),
        ({"settings": {"a": {1}}}, "can't be written as JSON: Object of type set"),
        ({"settings": {"a": math.inf}}, "can't be written as JSON"),
        ({"controls": [0.1]}, "controls=[0.1]: give values by name"),
        ({"controls": {"luck": 0.1}}, "controls has 'luck': use pixels, random_weights"),
        ({"controls": {"chance": 10}}, "controls['chance']=10: give a share"),
        ({"time": "yesterday"}, "time='yesterday': give UTC as ISO 8601, such as 20"),
        ({"time": "2026-11-20T10:00:00"}, "give UTC as ISO 8601"),
        ({"time": "2026-11-20T10:00:00+01:00"}, "give UTC as ISO 8601"),
    ],
)
def test_a_row_checks_itself(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        result_row(**changes)


def test_a_row_knows_when_and_by_which_version_it_was_made() -> None:
    row = ResultRow(
        model="m", weights=WEIGHTS, data="d", split="test", protocol="knn", metric="accuracy",
        value=1, num_examples=1, precision="float32", seed=0,
    )  # fmt: skip
    assert parsed_time(row.time).year >= 2026
    assert row.vitral_version == __version__


def test_the_place_of_rows_can_be_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAL_RESULTS", "/data/all.jsonl")
    assert results_path() == Path("/data/all.jsonl")
    monkeypatch.delenv("VITRAL_RESULTS")
    assert results_path() == Path("runs/results.jsonl")


def test_rows_that_can_not_be_kept_are_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    keep_results(tmp_path / "file" / "results.jsonl", [result_row()])
    assert "rows of results can't be kept in" in caplog.text
    keep_results(tmp_path / "new" / "results.jsonl", [result_row(), result_row(seed=1)])
    assert len(read_results(tmp_path / "new" / "results.jsonl")[0]) == 2
