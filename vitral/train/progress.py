"""What a person sees on standard error while a run goes on: a bar on a terminal, else lines."""

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0
# So that the bar fits into 80 columns.
_SHORT = {"accuracy": "acc", "images/s": "img/s", "waiting for data": "waiting", ", ": "  "}


class ProgressView:
    """Shows sentences and how far a long piece of work is."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        """Choose the view by the stream.

        Args:
            quiet: show nothing (processes other than the first).
            stream: standard error unless given.
        """
        self._console = Console(
            file=stream or sys.stderr, quiet=quiet, highlight=False, soft_wrap=True
        )
        self._log_path: Path | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._started = 0.0

    def log_to(self, path: Path) -> None:
        """Keep every sentence in a file too, from now on."""
        self._log_path = path

    def say(self, sentence: str) -> None:
        """Show a sentence, above the bar if there is one, and keep it in the log."""
        self._console.print(sentence, markup=False)
        if self._log_path:
            with self._log_path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(sentence + "\n")

    def start(self, title: str, *, total: int, done: int = 0) -> None:
        """Begin a piece of work of `total` units."""
        self._started = self._last_line = time.monotonic()
        self._done_before = done
        if self._console.is_terminal and not self._console.quiet:
            self._bar = Progress(
                BarColumn(bar_width=10),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[facts]}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, completed=done, facts=title)

    def update(self, done: int, total: int, *, title: str, facts: str = "") -> None:
        """Show how far the work is; without a terminal a line every ten seconds."""
        if self._bar is not None and self._task is not None:
            shown = facts or title
            for word, short in _SHORT.items():
                shown = shown.replace(word, short)
            self._bar.update(self._task, total=total, completed=done, facts=shown)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (done - self._done_before) / (now - self._started)
            left = f", {_duration((total - done) / rate)} left" if rate > 0 else ""
            self.say(f"{title}: {done:,} of {total:,}{left}{', ' if facts else ''}{facts}")

    def finish(self) -> None:
        """End the piece of work."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def describe(facts: dict[str, Any]) -> str:
    """Return measured facts in one line: epoch, loss, accuracy, images/s, wait for data."""
    shown = [f"epoch {facts['epoch']:.1f}", f"loss {facts['loss']:.3f}"]
    if facts.get("accuracy") is not None:
        shown.append(f"accuracy {100 * facts['accuracy']:.1f} %")
    shown.append(f"{facts['images_per_second']:,.0f} images/s")
    shown.append(f"{100 * facts['wait_share']:.0f} % waiting for data")
    return ", ".join(shown)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
