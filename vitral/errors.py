"""The errors that a user sees: each kind knows the exit status of the command that it ends.

VitralError (1)
├── RequestError (2)     a path, name or option is wrong, or a run can't go on with these settings
├── DataError (3)        the contents of the data
├── DivergedError (4)    a loss or gradient is not finite
├── ModelFileError (5)   the contents of a checkpoint or model
└── ProcessLostError (1) another process of the run is gone or hangs
"""

import difflib
from collections.abc import Iterable


class VitralError(Exception):
    """A mistake or circumstance that Vitral explains in one line, without a traceback."""

    exit_status = 1


class RequestError(VitralError):
    """What was asked for can't be carried out: a path, name, option or setting is wrong."""

    exit_status = 2


class DataError(VitralError):
    """The contents of the user's data stand in the way."""

    exit_status = 3


class DivergedError(VitralError):
    """Training produced a loss or gradient that is not finite."""

    exit_status = 4


class ModelFileError(VitralError):
    """A checkpoint or model file can't be used."""

    exit_status = 5


class ProcessLostError(VitralError):
    """Another process of the run is gone or hangs; one of those that are left has said it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'X'?` for the known name nearest to `name`, or the known names."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    if matches:
        return f": did you mean {folded[matches[0]]!r}?"
    return f": use one of {', '.join(known)}"
