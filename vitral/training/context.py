"""Where a run happens: the processes that share it, their device, and what a person sees of it."""

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

    def log(self, sentence: str) -> None:
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
            self.log(f"{title}: {done:,} of {total:,}{left}{', ' if facts else ''}{facts}")

    def finish(self) -> None:
        """End the piece of work."""
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
    """Processes, device and view of one run or of several, one after the other."""

    ranks: Distributed
    device: torch.device
    view: ProgressView


@contextmanager
def train_context(device: str = "auto", *, quiet: bool = False) -> Iterator[TrainContext]:
    """Join the processes that a launcher started, if any; the caller's random state stays as it is.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        quiet: say nothing on standard error.
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
    site: TrainContext,
    *,
    settings: Mapping[str, Any],
    channels: int | None,
    label: bool = True,
    targets: Sequence[str] = (),
) -> ImageDataset:
    """Open the data, the first process before the others, which find its survey in the cache.

    Args:
        data: a path, a name, or a sized object with [i] -> (image, label).
        site: whose view shows the progress.
        settings: of a run, by path; those of `data.*` count.
        channels: of the model; None: those of arrays, 3 for files.
        label: whether classes are read.
        targets: kinds of target to read beside them.
    """
    fields = {
        path.removeprefix("data."): value
        for path, value in settings.items()
        if path.startswith("data.")
    }
    sources = fewshot_sources(settings.get("evaluation.fewshot", ""))
    if not is_published(data) and any(map(is_published, sources)):
        fields.pop("directory", None)  # it is theirs
    data_settings = DataSettings(**fields | {"source": source_text(data)})

    def open_it() -> ImageDataset:
        site.view.start("looking at the images", total=1)

        def report(done: int, total: int) -> None:
            site.view.update(done, total, title="looking at the images")

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
            site.view.finish()

    opened: list[ImageDataset] = []
    site.ranks.run_on_main(lambda: opened.append(open_it()))
    with site.ranks.patient():
        return opened[0] if opened else open_it()


def source_text(data: Any) -> str:
    """Return what stands for the data in settings and messages."""
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    return f"{type(data).__name__} of {len(data)}"


def fewshot_sources(text: str) -> list[str]:
    """Return the data sources that `evaluation.fewshot` names.

    Raises:
        RequestError: text that is no source, or two sources of one name, whose rows would be mixed.
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
    """Return measured facts in one line: epoch, loss, accuracy, images/s, wait for data."""
    shown = [f"epoch {facts['epoch']:.1f}", f"loss {facts['loss']:.3f}"]
    if facts.get("accuracy") is not None:
        shown.append(f"accuracy {100 * facts['accuracy']:.1f} %")
    shown.append(f"{facts['images_per_second']:,.0f} images/s")
    shown.append(f"{100 * facts['wait_share']:.0f} % waiting for data")
    return ", ".join(shown)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(VitralError):
    """A run was asked to stop, and has saved what is there."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class StopRequest:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.signal_number = 0

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal_number = number


@contextlib.contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Catch the signals for the time of a run; outside the main thread nothing is caught."""
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
