"""How the processes of a group see each other, and how one of them tells of a loss for all."""

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
    """Writes this process's sign into the store and reads those of all, in a thread of its own.

    A store whose machine is gone never answers: nobody waits for the thread.
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
        """Begin to write and read.

        Args:
            store: a connection of its own: one that waits for an answer lets no one else ask.
            rank: of this process.
            world_size: of the group.
            make_sign: gives this process's sign of a beat.
            interval_seconds: between two looks.
        """
        self.is_broken = False
        self._store, self._make_sign, self._interval = store, make_sign, interval_seconds
        self._keys = [f"watch/{number}" for number in range(world_size)]
        self._own_key = self._keys[rank]
        self._news: list[Sign | None] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitral-signs", daemon=True)
        self._thread.start()

    def news(self) -> list[Sign | None] | None:
        """Return the signs of all ranks if they have been read since the last call."""
        news, self._news = self._news, None
        return news

    def close(self) -> None:
        """Write the last sign and end."""
        self._closed.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        beat, is_last, missing = 0, False, list(self._keys)
        try:
            while not is_last:
                is_last = self._closed.wait(self._interval if beat else 0)
                beat += 1
                self._store.set(self._own_key, self._make_sign(beat).encode())
                missing = [key for key in missing if not self._store.check([key])]
                present = [key for key in self._keys if key not in missing]
                texts = dict(zip(present, self._store.multi_get(present), strict=True))
                self._news = [
                    Sign.decode(texts[key]) if key in texts else None for key in self._keys
                ]
        except RuntimeError:  # of torch.distributed: the store is gone
            self.is_broken = True


class Neighbours:
    """The other processes on this machine, through handles that stay theirs when they have ended.

    Elsewhere than on Linux there are none.
    """

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._handles: dict[int, int] = {}
        self._known: set[int] = {rank}
        self._dead: set[int] = set()

    def know(self, signs: Sequence[Sign | None]) -> None:
        """Take note of processes that have joined."""
        own = signs[self._rank]
        for rank, sign in enumerate(signs):
            if not (own and sign) or rank in self._known:
                continue
            self._known.add(rank)
            if sys.platform == "linux" and sign.pid_space and sign.pid_space == own.pid_space:
                try:
                    self._handles[rank] = os.pidfd_open(sign.pid)
                except ProcessLookupError:
                    self._dead.add(rank)
                except OSError:  # an old kernel: signs of life must do
                    continue

    def dead(self) -> set[int]:
        """Return the ranks of those that have ended."""
        if self._handles:
            poll = select.poll()
            ranks = {handle: rank for rank, handle in self._handles.items()}
            for handle in ranks:
                poll.register(handle, select.POLLIN)
            self._dead |= {ranks[handle] for handle, _ in poll.poll(0)}
        return self._dead

    def kill(self, ranks: Collection[int]) -> None:
        """End processes that do not end by themselves."""
        for rank in set(ranks) & set(self._handles):
            if sys.platform == "linux":
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._handles[rank], signal.SIGKILL)

    def close(self) -> None:
        """Let go of the handles."""
        while self._handles:
            os.close(self._handles.popitem()[1])


def pid_space() -> str:
    """Return what is equal for processes that know each other by process id; empty: not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


_TELLING_SECONDS = 10.0
"""For the caller's function, whose disk may be what hangs."""


class Telling:
    """Tells the loss that ends this process, if it is the one that speaks.

    That is the lowest rank that is not at fault, which all find without asking each other.
    """

    def __init__(self, rank: int, *, local_rank: int) -> None:
        self._rank, self._local_rank = rank, local_rank
        self._lock, self._told = threading.Lock(), threading.Event()
        self.loss: Loss | None = None
        """What ends this process, its own error included; known before it is told."""
        self.on_loss: Callable[[str], str] | None = None
        """Writes the reason down and returns how to go on."""
        self.is_given_up = False
        """Whether this process was stopped so long that the others have ended without it."""

    def set_own(self, loss: Loss) -> bool:
        """Take this process's own error as the loss; say whether there was none before."""
        with self._lock:
            is_new = self.loss is None
            self.loss = self.loss or loss
            return is_new

    def tell(self, loss: Loss) -> None:
        """Tell a loss, unless one has been told."""
        with self._lock:
            if not self._told.is_set():
                self.loss = loss
                _call_within(_TELLING_SECONDS, lambda: self._say(loss))
                self._told.set()

    def wait(self, seconds: float) -> Loss | None:
        """Wait until a loss has been told, and return it."""
        return self.loss if self._told.wait(seconds) else None

    def note_again(self, loss: Loss) -> None:
        """Write the loss down once more: the main thread may have noted another state."""
        _call_within(_TELLING_SECONDS, lambda: self._note(loss))

    def speaks(self, loss: Loss) -> bool:
        """Say whether this process speaks for all."""
        if self.is_given_up:
            return False
        if loss.kind == "blind":  # the first process may be gone too: one on each machine
            return self._local_rank == 0
        if loss.kind == "failed":  # the first process notes its own error itself
            return self._rank == 0 and 0 not in loss.ranks
        return self._rank == min(set(range(len(loss.ranks) + 1)) - set(loss.ranks))

    def _say(self, loss: Loss) -> None:
        how_to_go_on = self._note(loss)
        if self.speaks(loss) and loss.kind != "failed":  # who failed says so itself
            text = ": ".join(filter(None, ("vitral", loss.reason, how_to_go_on)))
            print(text, file=sys.stderr, flush=True)

    def _note(self, loss: Loss) -> str:
        if not self.on_loss or not self.speaks(loss):
            return ""
        try:
            return self.on_loss(loss.reason)
        except Exception as error:  # of the caller's own function, on the way out
            return f"that could not be written down ({str(error) or type(error).__name__})"


def _call_within(seconds: float, function: Callable[[], object]) -> None:
    """Call a function, but wait for it no longer than this."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(seconds)
