"""The context of a run: its processes, their device, and the progress display."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vitral.config.run import DataSettings
from vitral.data.dataset import ImageDataset, open_dataset
from vitral.data.datasets.names import data_name, is_published
from vitral.errors import RequestError, VitralError
from vitral.runtime.device import choose_device
from vitral.runtime.distributed import Distributed, process_group, ranks_from_environment

_SECONDS_BETWEEN_LINES = 10.0
# Abbreviations, so that the bar fits into 80 columns.
_SHORT = {"accuracy": "acc", "images/s": "img/s", "waiting for data": "waiting", ", ": "  "}


class ProgressView:
    """Shows messages and the progress of long tasks."""

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
        """Also append every message to a file, from now on."""
        self._log_path = path

    def log(self, sentence: str) -> None:
        """Show a message, above the bar if there is one, and append it to the log file."""
        self._console.print(sentence, markup=False)
        if self._log_path:
            with self._log_path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(sentence + "\n")

    def start(self, title: str, *, total: int, done: int = 0) -> None:
        """Start a task of `total` units."""
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
        """Show the progress of the task; without a terminal, one line every ten seconds."""
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
            self.log(f"{title}: {done:,} of {total:,}{left}{', ' if facts else ''}{facts}")

    def finish(self) -> None:
        """End the task."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


@dataclass(frozen=True)
class TrainContext:
    """Processes, device and progress view of one run or of several consecutive runs."""

    ranks: Distributed
    device: torch.device
    view: ProgressView


@contextmanager
def train_context(device: str = "auto", *, quiet: bool = False) -> Iterator[TrainContext]:
    """Join the processes of a launcher, if any; the caller's random state is preserved.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        quiet: print nothing on standard error.
    """
    ranks = ranks_from_environment()
    chosen = choose_device(device, local_rank=ranks.local_rank)
    with (
        process_group(ranks, device=chosen) as joined,
        torch.random.fork_rng([chosen] if chosen.type == "cuda" else []),
    ):
        yield TrainContext(joined, chosen, ProgressView(quiet=quiet or not joined.is_main))


def open_training_data(
    data: Any,
    context: TrainContext,
    *,
    settings: Mapping[str, Any],
    channels: int | None,
    label: bool = True,
    targets: Sequence[str] = (),
) -> ImageDataset:
    """Open the data on the first process before the others, which read its scan from the cache.

    Args:
        data: a path, a name, or a sized object with [i] -> (image, label).
        context: its view shows the progress.
        settings: of a run, by path; only `data.*` is used.
        channels: of the model; None: those of arrays, 3 for files.
        label: whether classes are read.
        targets: kinds of targets to read besides classes.
    """
    fields = {
        path.removeprefix("data."): value
        for path, value in settings.items()
        if path.startswith("data.")
    }
    sources = fewshot_sources(settings.get("evaluation.fewshot", ""))
    if not is_published(data) and any(map(is_published, sources)):
        fields.pop("directory", None)  # it belongs to the few-shot sources
    data_settings = DataSettings(**fields | {"source": source_text(data)})

    def open_it() -> ImageDataset:
        context.view.start("looking at the images", total=1)

        def report(done: int, total: int) -> None:
            context.view.update(done, total, title="looking at the images")

        try:
            return open_dataset(
                data,
                channels=channels,
                settings=data_settings,
                report_progress=report,
                label=label,
                targets=targets,
            )
        finally:
            context.view.finish()

    opened: list[ImageDataset] = []
    context.ranks.run_on_main(lambda: opened.append(open_it()))
    with context.ranks.patient():
        return opened[0] if opened else open_it()


def source_text(data: Any) -> str:
    """Return the text that represents the data in settings and messages."""
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    return f"{type(data).__name__} of {len(data)}"


def fewshot_sources(text: str) -> list[str]:
    """Return the data sources named in `evaluation.fewshot`.

    Raises:
        RequestError: two sources have the same name, so that their rows would be mixed.
    """
    sources = [part.strip() for part in text.split(",") if part.strip()]
    names = Counter(map(data_name, sources))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise RequestError(
            f"evaluation.fewshot={text!r} names {twice[0]!r} twice: give each once, and folders of "
            "different names"
        )
    return sources


def describe(facts: dict[str, Any]) -> str:
    """Format measurements in one line: epoch, loss, accuracy, images/s, wait for data."""
    shown = [f"epoch {facts['epoch']:.1f}", f"loss {facts['loss']:.3f}"]
    if facts.get("accuracy") is not None:
        shown.append(f"accuracy {100 * facts['accuracy']:.1f} %")
    shown.append(f"{facts['images_per_second']:,.0f} images/s")
    shown.append(f"{100 * facts['wait_share']:.0f} % waiting for data")
    return ", ".join(shown)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(VitralError):
    """A run was interrupted by a signal, and has saved its state."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class StopRequest:
    """Records whether a signal requested a stop, and which."""

    def __init__(self) -> None:
        self.signal_number = 0

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal_number = number


@contextlib.contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM during a run; outside the main thread none is handled."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._receive) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
