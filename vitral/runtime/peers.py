"""How the processes of a group see each other: through its store, and through the kernel."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from vitral.runtime.liveness import Sign


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
