"""Decides which processes of a group are alive and make progress, from their signs of life.

Time counts only while the judging process itself was running, so that a process that was stopped
for an hour does not blame the others for that hour.
"""

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DEAD_SECONDS = 0.5
"""An ended process counts as lost after this time: its last sign may still arrive."""
PARTING_SECONDS = 5.0
"""The same once all work is done, when others end without a last sign."""
BROKEN_SECONDS = 2.0
"""How long the store may be gone before it counts: its host may be found dead meanwhile."""


@dataclass(frozen=True)
class Loss:
    """The reason why a group can't continue."""

    kind: Literal["ended", "failed", "stopped", "hanging", "broken", "blind"]
    """Respectively: processes have ended; one raised an error, which it prints itself; they give no
    sign of life; they make no progress; a connection broke; no process sees the others."""
    ranks: tuple[int, ...]
    """Processes at fault; empty: none in particular."""
    reason: str


@dataclass(frozen=True)
class Sign:
    """The state that a process publishes periodically."""

    beat: int
    """Increases as long as its threads run."""
    progress: int = 0
    """Increases as long as its work makes progress."""
    is_patient: bool = False
    """Whether it does work of unknown duration."""
    is_waiting: bool = False
    """Whether it waits for the others."""
    loss: Loss | None = None
    """The loss that it has detected or caused."""
    pid: int = 0
    host: str = ""
    """Name of its machine."""
    pid_space: str = ""
    """Equal if process ids are comparable; empty: not known."""

    def encode(self) -> str:
        """Return the sign as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def decode(text: str | bytes) -> "Sign":
        """Parse a sign from JSON."""
        fields: dict[str, Any] = json.loads(text)
        loss = fields.pop("loss")
        if loss:
            loss = Loss(**loss | {"ranks": tuple(loss["ranks"])})
        return Sign(**fields, loss=loss)


class Judge:
    """Measures how long each process has been silent or idle, and decides when it is too long."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size
        self._signs: list[Sign | None] = [None] * world_size
        self._silent = [0.0] * world_size
        self._idle = [0.0] * world_size
        self._dead = [0.0] * world_size
        self._unseen = self._broken = 0.0

    def see(
        self,
        signs: Sequence[Sign | None] | None,
        *,
        elapsed: float,
        dead: Collection[int] = (),
        is_broken: bool = False,
    ) -> None:
        """Update the judge after some seconds.

        Args:
            signs: of all ranks, each None until it has joined; None: no news.
            elapsed: seconds since the last call.
            dead: ranks whose processes have ended.
            is_broken: whether there will be no more news.
        """
        self._unseen += elapsed
        self._broken = self._broken + elapsed if is_broken else 0.0
        for rank in dead:
            self._dead[rank] += elapsed
        if signs is not None:
            self._compare(signs, self._unseen)
            self._unseen = 0.0

    def _compare(self, signs: Sequence[Sign | None], elapsed: float) -> None:
        is_patient = any(sign and sign.is_patient for sign in signs)
        for rank, (old, new) in enumerate(zip(self._signs, signs, strict=True)):
            is_silent = new is None or (old is not None and old.beat == new.beat)
            is_idle = old is not None and new is not None and old.progress == new.progress
            self._silent[rank] = self._silent[rank] + elapsed if is_silent else 0.0
            self._idle[rank] = self._idle[rank] + elapsed if is_idle and not is_patient else 0.0
        self._signs = list(signs)

    def sees_all(self) -> bool:
        """Return whether every process has just given a sign of life."""
        return not (self._unseen or self._broken or any(self._silent) or any(self._dead))

    def verdict(
        self, *, timeout_seconds: float, keeper: int | None = None, is_parting: bool = False
    ) -> Loss | None:
        """Return why the group can't continue, or None.

        Args:
            timeout_seconds: how long a process may be silent or idle.
            keeper: the rank that hosts the store; None: the launcher does.
            is_parting: whether all work is done, so that others may end without a last sign.
        """
        return (
            self._reported()
            or self._ended(PARTING_SECONDS if is_parting else DEAD_SECONDS)
            or self._blind(
                timeout_seconds, keeper, after=PARTING_SECONDS if is_parting else BROKEN_SECONDS
            )
            or self._stopped(timeout_seconds)
            or self._hanging(timeout_seconds)
        )

    def _reported(self) -> Loss | None:
        """Return the loss that another process has published, so that all report the same."""
        losses = [s.loss for r, s in enumerate(self._signs) if s and s.loss and r != self._rank]
        return min(losses, key=lambda loss: loss.kind == "failed", default=None)

    def _ended(self, after: float) -> Loss | None:
        if max(self._dead) < after:
            return None
        ranks = [rank for rank, seconds in enumerate(self._dead) if seconds]
        verb = "is" if len(ranks) == 1 else "are"
        return self._loss("ended", ranks, f"{verb} gone (killed, perhaps for want of memory)")

    def _blind(self, timeout_seconds: float, keeper: int | None, *, after: float) -> Loss | None:
        if self._broken < after and self._unseen <= timeout_seconds:
            return None
        what = "is gone" if self._broken else f"has not answered for {timeout_seconds:g} s"
        if keeper is not None:
            return self._loss("ended" if self._broken else "stopped", [keeper], what)
        return Loss("blind", (), f"the launcher, which keeps the processes in touch, {what}")

    def _stopped(self, timeout_seconds: float) -> Loss | None:
        if max(self._silent) <= timeout_seconds:
            return None
        # If a machine fails, its processes become silent at slightly different times.
        ranks = [rank for rank, seconds in enumerate(self._silent) if seconds > timeout_seconds / 2]
        verb = "has" if len(ranks) == 1 else "have"
        what = f"{verb} given no sign of life for {timeout_seconds:g} s (stopped, or out of reach)"
        return self._loss("stopped", ranks, what)

    def _hanging(self, timeout_seconds: float) -> Loss | None:
        """Return which processes keep the others waiting, or that all wait for each other.

        Undecided while any process has been silent for long: it may have been stopped during a
        long step, and so be idle longer than silent.
        """
        if max(self._silent) > timeout_seconds / 2:
            return None
        waiting = {rank for rank, sign in enumerate(self._signs) if sign and sign.is_waiting}
        working = [seconds for r, seconds in enumerate(self._idle) if r not in waiting]
        if max(working, default=0.0) <= timeout_seconds and min(self._idle) <= timeout_seconds:
            return None
        late = [r for r, seconds in enumerate(self._idle) if seconds > timeout_seconds / 2]
        ranks = [rank for rank in late if rank not in waiting]
        what = (
            f"not come on for {timeout_seconds:g} s (raise train.timeout_seconds if a step may "
            "take longer)"
        )
        if len(ranks) in (0, self._world_size):
            return Loss("hanging", (), f"the processes have {what}")
        return self._loss("hanging", ranks, f"{'has' if len(ranks) == 1 else 'have'} {what}")

    def _loss(
        self, kind: Literal["ended", "stopped", "hanging"], ranks: Sequence[int], what: str
    ) -> Loss:
        return Loss(kind, tuple(ranks), f"{self.name(ranks)} {what}")

    def name(self, ranks: Sequence[int]) -> str:
        """Return a name of processes: `rank 1 of 2`, with their machines if there are several."""
        signs = {rank: self._signs[rank] for rank in ranks}
        hosts = sorted({sign.host for sign in signs.values() if sign})
        this_sign = self._signs[self._rank]
        elsewhere = this_sign is not None and hosts not in ([], [this_sign.host])
        listed = ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")
        location = f" (on {', '.join(hosts[:8])})" if elsewhere else ""
        return f"rank{'s' if len(ranks) > 1 else ''} {listed} of {self._world_size}{location}"
