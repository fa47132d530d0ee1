"""Ctrl-C and SIGTERM ask a run to save and stop; asked a second time, it stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from vitral.errors import VitralError

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
