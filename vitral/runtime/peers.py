"""Exchange of signs between the processes of a group, and the report of a loss by one of them."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from vitral.runtime.liveness import Loss, Sign


class SignBoard:
    """Writes this process's sign into the store and reads all signs, in a separate thread.

    If its machine is gone, the store never answers: nothing waits for the thread.
    """

    def __init__(
        self,
        store: Any,
        *,
        rank: int,
        world_size: int,
        make_sign: Callable[[int], Sign],
        interval_seconds: float,
    ) -> None:
        """Start writing and reading.

        Args:
            store: a connection used by nothing else, since a pending request blocks others.
            rank: of this process.
            world_size: of the group.
            make_sign: returns this process's sign for a beat.
            interval_seconds: between two updates.
        """
        self.is_broken = False
        self._store, self._make_sign, self._interval = store, make_sign, interval_seconds
        self._keys = [f"watch/{number}" for number in range(world_size)]
        self._key = self._keys[rank]
        self._news: list[Sign | None] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitral-signs", daemon=True)
        self._thread.start()

    def news(self) -> list[Sign | None] | None:
        """Return the signs of all ranks if they were read since the last call, else None."""
        news, self._news = self._news, None
        return news

    def close(self) -> None:
        """Write the last sign and stop."""
        self._closed.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        beat, is_last, missing = 0, False, list(self._keys)
        try:
            while not is_last:
                is_last = self._closed.wait(self._interval if beat else 0)
                beat += 1
                self._store.set(self._key, self._make_sign(beat).encode())
                missing = [key for key in missing if not self._store.check([key])]
                present = [key for key in self._keys if key not in missing]
                texts = dict(zip(present, self._store.multi_get(present), strict=True))
                self._news = [
                    Sign.decode(texts[key]) if key in texts else None for key in self._keys
                ]
        except RuntimeError:  # of torch.distributed: the store is gone
            self.is_broken = True


class Neighbours:
    """The other processes on this machine, by handles that stay valid after they have ended.

    Only on Linux; elsewhere there are none.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._handles: dict[int, int] = {}
        self._known: set[int] = {rank}
        self._dead: set[int] = set()

    def know(self, signs: Sequence[Sign | None]) -> None:
        """Open handles of processes that have joined."""
        this_sign = signs[self._rank]
        for rank, sign in enumerate(signs):
            if not (this_sign and sign) or rank in self._known:
                continue
            self._known.add(rank)
            if sys.platform == "linux" and sign.pid_space and sign.pid_space == this_sign.pid_space:
                try:
                    self._handles[rank] = os.pidfd_open(sign.pid)
                except ProcessLookupError:
                    self._dead.add(rank)
                except OSError:  # an old kernel: only signs of life are used
                    continue

    def dead(self) -> set[int]:
        """Return the ranks of processes that have ended."""
        if self._handles:
            poll = select.poll()
            ranks = {handle: rank for rank, handle in self._handles.items()}
            for handle in ranks:
                poll.register(handle, select.POLLIN)
            self._dead |= {ranks[handle] for handle, _ in poll.poll(0)}
        return self._dead

    def kill(self, ranks: Collection[int]) -> None:
        """Kill processes that do not end by themselves."""
        for rank in set(ranks) & set(self._handles):
            if sys.platform == "linux":
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._handles[rank], signal.SIGKILL)

    def close(self) -> None:
        """Close the handles."""
        while self._handles:
            os.close(self._handles.popitem()[1])


def pid_space() -> str:
    """Return a text that is equal if process ids are comparable; empty: not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


_REPORT_SECONDS = 10.0
"""Time limit of the caller's function, whose disk may hang."""


class LossReporter:
    """Reports the loss that ends this process, if this process speaks for all.

    That is the lowest rank that is not at fault, which each determines without communication.
    """

    def __init__(self, rank: int, *, local_rank: int) -> None:
        self._rank, self._local_rank = rank, local_rank
        self._lock, self._reported = threading.Lock(), threading.Event()
        self.loss: Loss | None = None
        """The loss that ends this process, including its own error; set before it is reported."""
        self.on_loss: Callable[[str], str] | None = None
        """Records the reason and returns how to resume."""
        self.is_given_up = False
        """Whether this process was stopped so long that the others have ended without it."""

    def set_local(self, loss: Loss) -> bool:
        """Set this process's own error as the loss; return whether there was none before."""
        with self._lock:
            is_new = self.loss is None
            self.loss = self.loss or loss
            return is_new

    def report(self, loss: Loss) -> None:
        """Report a loss, unless one has been reported."""
        with self._lock:
            if not self._reported.is_set():
                self.loss = loss
                _call_within(_REPORT_SECONDS, lambda: self._print(loss))
                self._reported.set()

    def wait(self, seconds: float) -> Loss | None:
        """Wait until a loss has been reported, and return it."""
        return self.loss if self._reported.wait(seconds) else None

    def record_again(self, loss: Loss) -> None:
        """Record the loss again: the main thread may have recorded another state."""
        _call_within(_REPORT_SECONDS, lambda: self._record(loss))

    def speaks_for_all(self, loss: Loss) -> bool:
        """Return whether this process is the one that reports a loss for all."""
        if self.is_given_up:
            return False
        if loss.kind == "blind":  # the first process may be gone too: one on each machine
            return self._local_rank == 0
        if loss.kind == "failed":  # the first process records its own error itself
            return self._rank == 0 and 0 not in loss.ranks
        return self._rank == min(set(range(len(loss.ranks) + 1)) - set(loss.ranks))

    def _print(self, loss: Loss) -> None:
        hint = self._record(loss)
        # A process that failed prints its own error.
        if self.speaks_for_all(loss) and loss.kind != "failed":
            text = ": ".join(filter(None, ("vitral", loss.reason, hint)))
            print(text, file=sys.stderr, flush=True)

    def _record(self, loss: Loss) -> str:
        if not self.on_loss or not self.speaks_for_all(loss):
            return ""
        try:
            return self.on_loss(loss.reason)
        except Exception as error:  # of the caller's own function, on the way out
            return f"that could not be written down ({str(error) or type(error).__name__})"


def _call_within(seconds: float, function: Callable[[], object]) -> None:
    """Call a function in a thread, and wait for it no longer than some seconds."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
