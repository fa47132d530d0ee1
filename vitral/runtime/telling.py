"""How a loss is told: by one process for all, once, in one line."""

import sys
import threading
from collections.abc import Callable

from vitral.runtime.liveness import Loss

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
