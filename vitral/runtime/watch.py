"""Ends the processes of a group soon after one of them dies, hangs or fails.

Each process has two small threads. One writes a sign of life into the group's store and reads those
of the others (`peers`); the second judges them (`liveness`). It never waits for the store, which
does not answer if its machine is gone. Processes on the same machine are also watched through the
kernel, which reports at once that one has ended.

A short timeout of the collectives would not do: the others could not wait while one process scans a
million images, a timeout of NCCL aborts the process silently, and it does not distinguish a dead
process from a slow one. Neither would a `monitored_barrier` at each step: NCCL has none, and a
process inside a collective that never ends could still not be notified.

One process reports for all (`peers.LossReporter`). A main thread that meets the loss in a
collective, as with gloo, ends with `ProcessLostError`. If the main thread can't be reached, as with
NCCL, or hangs itself, the process is ended from here.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import torch.distributed as dist

from vitral.config.run import TrainSettings
from vitral.errors import ProcessLostError, VitralError
from vitral.runtime.liveness import Judge, Loss, Sign
from vitral.runtime.peers import LossReporter, Neighbours, SignBoard, pid_space

_INTERVAL_SECONDS = 0.25
_RANKS_PER_INTERVAL_SECOND = 64  # each reads all signs: larger groups check less often
_LEAVING_SECONDS = 10.0
"""Time for a process to end by itself after an error, its own or another's, has ended the run. A
launcher that has noticed kills after 30."""
_LEAVING_LOST_SECONDS = 5.0
"""Time for the main thread to end by itself once a loss has been reported."""
_SIGNAL_SECONDS = 2.0
"""Time to find a loss after SIGTERM, which a launcher sends when it has seen one."""
_BROKEN_SECONDS = 10.0
"""How long the others may be silent once a connection between main threads has broken."""


class Watch:
    """Watches the other processes of a group, and publishes the state of this one.

    Calls from the main thread are cheap: they count, and the threads do the rest.
    """

    def __init__(
        self,
        store: Any,
        *,
        rank: int,
        world_size: int,
        local_rank: int = 0,
        timeout_seconds: float = TrainSettings.timeout_seconds,
    ) -> None:
        """Start watching; `close` ends it.

        Args:
            store: a connection to the group's store that nothing else uses.
            rank: of this process.
            world_size: of the group.
            local_rank: on its machine.
            timeout_seconds: how long a process may give no sign of life, or make no progress,
                outside of `patient`.
        """
        self._rank, self._timeout = rank, timeout_seconds
        self._progress = self._num_patient = self._num_waiting = 0
        self._is_parting = self._is_leaving = False
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._reporter = LossReporter(rank, local_rank=local_rank)
        self._identity: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "pid_space": pid_space(),
        }
        # Without a launcher the first process hosts the store.
        has_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._keeper = None if has_launcher else 0
        self._interval = max(_INTERVAL_SECONDS, world_size / _RANKS_PER_INTERVAL_SECOND)
        self._judge, self._neighbours = Judge(rank, world_size), Neighbours(rank)
        self._board = SignBoard(
            store,
            rank=rank,
            world_size=world_size,
            make_sign=self._sign,
            interval_seconds=self._interval,
        )
        self._thread = threading.Thread(target=self._run, name="vitral-watch", daemon=True)
        self._thread.start()

    def mark_progress(self) -> None:
        """Record that the work of this process makes progress."""
        self._progress += 1

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Do work of unknown duration while others wait: only signs of life count."""
        self._num_patient += 1
        try:
            yield
        finally:
            self._progress += 1
            self._num_patient -= 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for other processes: a waiting process is not at fault."""
        self._progress += 1
        self._num_waiting += 1
        try:
            yield
        finally:
            self._progress += 1
            self._num_waiting -= 1

    @contextlib.contextmanager
    def guard(
        self,
        *,
        timeout_seconds: float | None = None,
        on_loss: Callable[[str], str] | None = None,
    ) -> Iterator[None]:
        """Convert the errors that torch raises if another process is lost into one error.

        Args:
            timeout_seconds: replaces the group's; None: the same.
            on_loss: called with the reason on the one process that reports for all, from another
                thread and perhaps twice; returns how to resume.

        Raises:
            ProcessLostError: another process is gone, hangs or has failed.
        """
        before = self._timeout, self._reporter.on_loss
        self._timeout = timeout_seconds or self._timeout
        self._reporter.on_loss = on_loss or self._reporter.on_loss
        try:
            yield
        except RuntimeError as error:
            loss = self._find_loss(error) if _is_of_connections(error) else None
            if loss is None:
                raise
            raise ProcessLostError(loss.reason) from None
        finally:
            self._timeout, self._reporter.on_loss = before

    @contextlib.contextmanager
    def heed_launcher(self) -> Iterator[None]:
        """Determine on SIGTERM whether a launcher has noticed a lost process.

        Raises:
            ProcessLostError: it has. Otherwise the process ends as usual.
        """
        is_free = threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        )
        if is_free:
            signal.signal(signal.SIGTERM, self._answer)
        try:
            yield
        finally:
            if is_free:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _answer(self, number: int, _frame: FrameType | None) -> None:
        if self._is_leaving:
            return  # it ends by itself, after printing its error
        self._is_leaving = True
        loss = self._reporter.wait(_SIGNAL_SECONDS)
        if loss:
            raise ProcessLostError(loss.reason)
        self.fail(ProcessLostError("it was asked to stop"))
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def part(self) -> None:
        """Record that all work is done: from here on others may end."""
        self._is_parting = True

    def fail(self, error: BaseException) -> None:
        """Publish why this process ends."""
        self._is_leaving = True
        reason = f"{self._judge.name([self._rank])} has failed: {_text(error)}"
        if self._reporter.set_local(Loss("failed", (self._rank,), reason)):
            self._error = error

    def close(self) -> None:
        """End the threads."""
        self._closed.set()
        self._thread.join(timeout=1)
        self._board.close()
        self._neighbours.close()

    def _sign(self, beat: int) -> Sign:
        return Sign(
            beat,
            self._progress,
            is_patient=self._num_patient > 0,
            is_waiting=self._num_waiting > 0,
            loss=self._reporter.loss,
            **self._identity,
        )

    def _run(self) -> None:
        since_error = since_failure = 0.0
        before = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            # At most the time that it was running: a stopped process does not see the others.
            elapsed = min(now - before, 2 * self._interval)
            if now - before > self._limit():
                self._reporter.is_given_up = True
            before = now
            if self._error:
                since_error += elapsed
                if since_error > _LEAVING_SECONDS:
                    self._end_with(self._error)
                continue
            known = self._reporter.loss
            loss = known or self._look(elapsed)
            if loss is None:
                continue
            if loss.kind == "failed" and not (known or self._is_leaving):
                since_failure += elapsed
                if since_failure <= _LEAVING_SECONDS:
                    continue  # this process may be about to end with the same error
            self._reporter.report(loss)
            self._end(loss)

    def _look(self, elapsed: float) -> Loss | None:
        signs = self._board.news()
        if signs is not None:
            self._neighbours.know(signs)
        self._judge.see(
            signs,
            elapsed=elapsed,
            dead=self._neighbours.dead(),
            is_broken=self._board.is_broken,
        )
        if self._judge.sees_all():
            self._reporter.is_given_up = False  # all were stopped together
        return self._judge.verdict(
            timeout_seconds=self._limit(),
            keeper=self._keeper,
            is_parting=self._is_parting,
        )

    def _limit(self) -> float:
        """Return how long the others may be silent or idle."""
        limit = min(self._timeout, _BROKEN_SECONDS) if self._is_leaving else self._timeout
        return max(limit, 4 * self._interval)

    def _find_loss(self, error: RuntimeError) -> Loss | None:
        """Wait for the reason why a connection broke; None: torch was used wrongly."""
        self._is_leaving = True
        loss = self._reporter.wait(_BROKEN_SECONDS + 5)
        if loss is None and not isinstance(error, dist.DistBackendError):
            first = str(error).splitlines()[0]
            loss = Loss("broken", (), f"the connection between the processes broke ({first})")
            self._reporter.report(loss)
        return loss

    def _end(self, loss: Loss) -> None:
        """End this process, unless its main thread does."""
        if loss.kind == "stopped" and self._reporter.speaks_for_all(loss):
            # A stopped process would not end before it is continued.
            self._neighbours.kill(loss.ranks)
        if not self._closed.wait(_LEAVING_LOST_SECONDS):
            self._reporter.record_again(loss)
            _exit(1)

    def _end_with(self, error: BaseException) -> None:
        """End this process, whose main thread hangs while closing the group."""
        print(f"vitral: {_text(error)}", file=sys.stderr)
        _exit(error.exit_status if isinstance(error, VitralError) else 1)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _is_of_connections(error: RuntimeError) -> bool:
    """Return whether torch may have raised an error because a process is lost."""
    # gloo's errors have no own type; those with "enforce fail" are mistakes in its use.
    text = str(error)
    return isinstance(error, dist.DistError) or ("gloo" in text and "enforce fail" not in text)


def _exit(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
