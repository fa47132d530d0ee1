import io
import re
from pathlib import Path

import pytest

from vitral.training.context import ProgressView, describe

FACTS = {
    "epoch": 29.04,
    "loss": 0.8801,
    "accuracy": 0.625,
    "images_per_second": 12990.0,
    "wait_share": 0.021,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_facts_are_one_line() -> None:
    assert describe(FACTS) == (
        "epoch 29.0, loss 0.880, accuracy 62.5 %, 12,990 images/s, 2 % waiting for data"
    )


def test_the_bar_shows_everything_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    view = ProgressView(stream=stream)
    view.start("training", total=100)
    view.update(60, 100, title="training", facts=describe(FACTS))
    view.finish()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    last = [line for line in re.split(r"[\r\n]", shown) if "epoch" in line][-1]
    for part in ("60 %", "epoch 29.0", "loss 0.880", "acc 62.5 %", "12,990 img/s", "2 % waiting"):
        assert part in last
    assert re.search(r"\d\d:\d\d|--:--", last)
    assert len(last) <= 80


def test_without_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    view = ProgressView(stream=stream)
    view.start("training", total=100)
    view.update(1, 100, title="training")
    assert stream.getvalue() == ""
    view._last_line -= 11
    view._started -= 11
    view.update(50, 100, title="training", facts="loss 1")
    assert re.fullmatch(r"training: 50 of 100, 1\d s left, loss 1\n", stream.getvalue())


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    view = ProgressView(quiet=True, stream=stream)
    view.log("hello")
    assert stream.getvalue() == ""


def test_sentences_are_kept_in_the_log(tmp_path: Path) -> None:
    view = ProgressView(stream=io.StringIO())
    view.log_to(tmp_path / "log.txt")
    view.log("[bold] stays as it is")
    assert (tmp_path / "log.txt").read_text() == "[bold] stays as it is\n"
