"""Verdicts about processes, by a simulated clock."""

from dataclasses import replace

import pytest

from vitral.runtime.liveness import Judge, Loss, Sign

TIMEOUT = 10.0
STEP = 1.0


class Group:
    """Signs of processes that a test advances by hand."""

    def __init__(self, world_size: int = 3, *, rank: int = 0) -> None:
        self.judge = Judge(rank, world_size)
        self.signs = [Sign(0, host="here") for _ in range(world_size)]
        self.see()

    def see(self, *, dead: set[int] | None = None, is_broken: bool = False) -> None:
        self.judge.see(list(self.signs), elapsed=STEP, dead=dead or (), is_broken=is_broken)

    def go(
        self, seconds: float, *, stopped: tuple[int, ...] = (), idle: tuple[int, ...] = ()
    ) -> None:
        """Let time pass while some processes are stopped or make no progress."""
        for _ in range(int(seconds / STEP)):
            for rank, sign in enumerate(self.signs):
                if rank not in stopped:
                    moved = sign.progress + (rank not in idle)
                    self.signs[rank] = replace(sign, beat=sign.beat + 1, progress=moved)
            self.see()

    def mark(self, rank: int, **fields: object) -> None:
        self.signs[rank] = replace(self.signs[rank], **fields)  # type: ignore[arg-type]

    def verdict(self, *, is_parting: bool = False) -> Loss | None:
        return self.judge.verdict(timeout_seconds=TIMEOUT, is_parting=is_parting)

    def fault(self) -> tuple[str, tuple[int, ...]]:
        loss = self.verdict()
        assert loss is not None
        return loss.kind, loss.ranks


def test_a_sign_comes_back_as_it_was() -> None:
    sign = Sign(3, 4, is_waiting=True, loss=Loss("ended", (1, 2), "gone"), pid=5, host="a")
    assert Sign.decode(sign.encode()) == sign


def test_processes_that_come_on_are_well() -> None:
    group = Group()
    group.go(100)
    assert group.verdict() is None
    assert group.judge.sees_all()


def test_a_stopped_process_is_lost_after_the_time_out() -> None:
    group = Group()
    group.go(TIMEOUT, stopped=(1,), idle=(0, 2))
    assert group.verdict() is None
    group.go(STEP, stopped=(1,), idle=(0, 2))
    assert group.fault() == ("stopped", (1,))
    assert "rank 1 of 3 has given no sign of life for 10 s" in group.verdict().reason  # type: ignore[union-attr]


def test_who_was_stopped_in_the_middle_of_a_long_step_is_stopped_all_the_same() -> None:
    """It made no progress before it fell silent, and the others wait for it."""
    group = Group()
    for rank in range(3):
        group.mark(rank, is_waiting=True)
    group.go(2 * STEP, idle=(0, 1, 2))
    for _ in range(int(TIMEOUT / STEP)):
        group.go(STEP, stopped=(1,), idle=(0, 1, 2))
        assert group.verdict() is None
    group.go(STEP, stopped=(1,), idle=(0, 1, 2))
    assert group.fault() == ("stopped", (1,))


def test_who_hangs_is_found_though_a_sign_is_missed() -> None:
    group = Group()
    group.go(TIMEOUT - 2 * STEP, idle=(0, 1, 2))
    group.go(3 * STEP, stopped=(1,), idle=(0, 1, 2))
    assert group.fault() == ("hanging", ())


def test_a_machine_takes_all_its_processes_with_it() -> None:
    """Its lowest rank is noticed first, but must not be the only one considered lost."""
    group = Group(4, rank=3)
    group.mark(0, host="there")
    group.mark(1, host="there")
    group.go(STEP, stopped=(0,))
    group.go(TIMEOUT, stopped=(0, 1))
    assert group.fault() == ("stopped", (0, 1))
    assert "ranks 0, 1 of 4 (on there)" in group.verdict().reason  # type: ignore[union-attr]


def test_who_keeps_the_others_waiting_hangs() -> None:
    group = Group()
    for rank in (0, 2):
        group.mark(rank, is_waiting=True)
    group.go(TIMEOUT + STEP, idle=(0, 1, 2))
    assert group.fault() == ("hanging", (1,))


def test_who_waits_for_one_that_comes_on_does_not_hang() -> None:
    group = Group()
    for rank in (0, 2):
        group.mark(rank, is_waiting=True)
    group.go(5 * TIMEOUT, idle=(0, 2))
    assert group.verdict() is None


@pytest.mark.parametrize("is_waiting", [False, True])
def test_processes_that_all_wait_hang_together(is_waiting: bool) -> None:
    group = Group()
    for rank in range(3):
        group.mark(rank, is_waiting=is_waiting)
    group.go(TIMEOUT + STEP, idle=(0, 1, 2))
    assert group.fault() == ("hanging", ())


def test_patience_is_for_work_and_not_for_silence() -> None:
    group = Group()
    group.mark(0, is_patient=True)
    group.go(5 * TIMEOUT, idle=(0, 1, 2))
    assert group.verdict() is None
    group.go(TIMEOUT + STEP, stopped=(0,), idle=(1, 2))
    assert group.fault() == ("stopped", (0,))


def test_time_begins_anew_after_work_of_unknown_length() -> None:
    group = Group()
    group.mark(0, is_patient=True)
    group.go(5 * TIMEOUT, idle=(0, 1, 2))
    group.mark(0, is_patient=False)
    group.go(TIMEOUT, idle=(0, 1, 2))
    assert group.verdict() is None


def test_a_process_that_has_ended_is_lost_at_once_but_not_when_all_is_done() -> None:
    group = Group()
    group.see(dead={2})
    assert group.fault() == ("ended", (2,))
    assert group.verdict(is_parting=True) is None


def test_a_process_that_never_joins_is_lost() -> None:
    judge = Judge(0, 2)
    for beat in range(12):
        judge.see([Sign(beat), None], elapsed=STEP)
    loss = judge.verdict(timeout_seconds=TIMEOUT)
    assert loss is not None
    assert loss.ranks == (1,)


def test_what_another_process_has_found_is_believed() -> None:
    """A loss that one process sees takes precedence over the error that it causes in another."""
    group = Group()
    failed, ended = Loss("failed", (1,), "torn"), Loss("ended", (2,), "rank 2 of 3 is gone")
    group.mark(1, loss=failed)
    group.see()
    assert group.verdict() == failed
    group.mark(2, loss=ended)
    group.see()
    assert group.verdict() == ended


@pytest.mark.parametrize(("keeper", "wanted"), [(None, ("blind", ())), (0, ("ended", (0,)))])
def test_without_the_store_nobody_is_seen(
    keeper: int | None, wanted: tuple[str, tuple[int, ...]]
) -> None:
    group = Group(rank=1)
    group.see(is_broken=True)
    assert group.judge.verdict(timeout_seconds=TIMEOUT, keeper=keeper) is None
    group.see(is_broken=True)
    loss = group.judge.verdict(timeout_seconds=TIMEOUT, keeper=keeper)
    assert loss is not None
    assert (loss.kind, loss.ranks) == wanted


def test_a_store_that_does_not_answer_is_no_fault_of_the_others() -> None:
    judge = Judge(1, 2)
    for _ in range(11):
        judge.see(None, elapsed=STEP)
    loss = judge.verdict(timeout_seconds=TIMEOUT)
    assert loss is not None
    assert loss.kind == "blind"
    assert "has not answered for 10 s" in loss.reason
