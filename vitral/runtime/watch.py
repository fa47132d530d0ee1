"""Ends the processes of a group soon after one of them dies, hangs or fails.

Each process has two small threads. One writes a sign of life into the group's store and reads those
of the others (`peers`); the second judges them (`liveness`). It waits for no answer of the store,
since a store whose machine is gone never answers. Processes of the same machine are watched through
the kernel too, which knows at once that one has ended.

Why not a short time-out of the collectives: the others could not wait while one process looks at a
million images, a time-out of NCCL aborts the process without a word, and it does not tell a process
that is gone from one that is slow. Nor a `monitored_barrier` at each step: NCCL has none, and who
sits in a collective that never ends could still not be told.

One process says it for all (`telling`). A main thread that meets the loss in a collective, as with
gloo, ends by `ProcessLostError`; where the main thread can't be reached, as with NCCL, or when it
hangs itself, the process is ended from here.
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
from vitral.runtime.peers import Neighbours, SignBoard, Telling, pid_space

_INTERVAL_SECONDS = 0.25
_RANKS_PER_INTERVAL_SECOND = 64  # all read the signs of all: larger groups look less often
_LEAVING_SECONDS = 10.0
"""For a process whose error, or another's, ends the run to end by itself. A launcher that has
noticed kills after 30."""
_LEAVING_LOST_SECONDS = 5.0
"""For the main thread to end by itself once a loss has been told."""
_SIGNAL_SECONDS = 2.0
"""For a loss to be found after SIGTERM, which a launcher sends when it has seen one."""
_BROKEN_SECONDS = 10.0
"""How long the others may be silent once a connection between main threads has broken."""


class Watch:
    """Watches the other processes of a group, and tells them of this one.

    What the main thread calls is cheap: it counts, and the threads do the rest.
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
        """Begin to watch; `close` ends it.

        Args:
            store: a connection to the group's store that nobody else uses.
            rank: of this process.
            world_size: of the group.
            local_rank: on its machine.
            timeout_seconds: how long a process may give no sign of life, or not come on, outside of
                `patient`.
        """
        self._rank, self._timeout = rank, timeout_seconds
        self._progress = self._num_patient = self._num_waiting = 0
        self._is_parting = self._is_leaving = False
        self._own_error: BaseException | None = None
        self._closed = threading.Event()
        self._telling = Telling(rank, local_rank=local_rank)
        self._place: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "pid_space": pid_space(),
        }
        # Without a launcher the first process keeps the store.
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
        """Tell that the work of this process comes on."""
        self._progress += 1

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Do work of unknown length, for which the others wait: only a sign of life counts."""
        self._num_patient += 1
        try:
            yield
        finally:
            self._progress += 1
            self._num_patient -= 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for the others: who waits is not at fault."""
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
        """Turn what torch raises where another process is lost into one error.

        Args:
            timeout_seconds: instead of the group's; None: the same.
            on_loss: called with the reason on the one process that speaks for all, from another
                thread and perhaps twice; returns how to go on.

        Raises:
            ProcessLostError: another process is gone, hangs or has failed.
        """
        before = self._timeout, self._telling.on_loss
        self._timeout = timeout_seconds or self._timeout
        self._telling.on_loss = on_loss or self._telling.on_loss
        try:
            yield
        except RuntimeError as error:
            loss = self._find_loss(error) if _is_of_connections(error) else None
            if loss is None:
                raise
            raise ProcessLostError(loss.reason) from None
        finally:
            self._timeout, self._telling.on_loss = before

    @contextlib.contextmanager
    def heed_launcher(self) -> Iterator[None]:
        """Find out, when SIGTERM comes, whether a launcher has seen that a process is lost.

        Raises:
            ProcessLostError: so it is. Else the process ends, as it would have.
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
            return  # it ends by itself, and has a word to say before
        self._is_leaving = True
        loss = self._telling.wait(_SIGNAL_SECONDS)
        if loss:
            raise ProcessLostError(loss.reason)
        self.fail(ProcessLostError("it was asked to stop"))
        self.close()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def part(self) -> None:
        """Tell that all is done: from here on others may end."""
        self._is_parting = True

    def fail(self, error: BaseException) -> None:
        """Tell the others why this process ends."""
        self._is_leaving = True
        reason = f"{self._judge.name([self._rank])} has failed: {_text(error)}"
        if self._telling.set_own(Loss("failed", (self._rank,), reason)):
            self._own_error = error

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
            loss=self._telling.loss,
            **self._place,
        )

    def _run(self) -> None:
        since_own_error = since_failure = 0.0
        before = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            # No more than it was awake: a process that is stopped does not see what others do.
            elapsed = min(now - before, 2 * self._interval)
            if now - before > self._limit():
                self._telling.is_given_up = True
            before = now
            if self._own_error:
                since_own_error += elapsed
                if since_own_error > _LEAVING_SECONDS:
                    self._end_with(self._own_error)
                continue
            known = self._telling.loss
            loss = known or self._look(elapsed)
            if loss is None:
                continue
            if loss.kind == "failed" and not (known or self._is_leaving):
                since_failure += elapsed
                if since_failure <= _LEAVING_SECONDS:
                    continue  # this process may be about to end with the same error
            self._telling.tell(loss)
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
            self._telling.is_given_up = False  # all were stopped together
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
        """Wait until it is found why a connection broke; None: torch was used wrongly."""
        self._is_leaving = True
        loss = self._telling.wait(_BROKEN_SECONDS + 5)
        if loss is None and not isinstance(error, dist.DistBackendError):
            first = str(error).splitlines()[0]
            loss = Loss("broken", (), f"the connection between the processes broke ({first})")
            self._telling.tell(loss)
        return loss

    def _end(self, loss: Loss) -> None:
        """End this process, unless its main thread does so."""
        if loss.kind == "stopped" and self._telling.speaks(loss):
            self._neighbours.kill(
                loss.ranks
            )  # what is stopped would not end before it is continued
        if not self._closed.wait(_LEAVING_LOST_SECONDS):
            self._telling.note_again(loss)
            _exit(1)

    def _end_with(self, error: BaseException) -> None:
        """End this process, whose main thread hangs while it takes the group apart."""
        print(f"vitral: {_text(error)}", file=sys.stderr)
        _exit(error.exit_status if isinstance(error, VitralError) else 1)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _is_of_connections(error: RuntimeError) -> bool:
    """Say whether torch may have raised an error because a process is lost."""
    # gloo's errors are of no kind of their own; those that it enforces are mistakes in its use.
    text = str(error)
    return isinstance(error, dist.DistError) or ("gloo" in text and "enforce fail" not in text)


def _exit(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
