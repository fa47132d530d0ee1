"""One process dies, hangs or fails, and the others end soon, with one line and a reason."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist

from vitral.errors import DataError, ProcessLostError
from vitral.runtime.watch import Watch

CLOSED = "[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1"

SCRIPT = """
import sys, time
from pathlib import Path
import torch
from vitral.errors import DataError, ProcessLostError, VitralError
from vitral.runtime.distributed import process_group, ranks_from_environment

def note(reason):
    Path(f"reason-{ranks_from_environment().rank}").write_text(reason)
    return "run it again"

def work(ranks, scenario):
    ranks.wait()
    Path(f"ready-{ranks.rank}").touch()
    if scenario == "patient":
        return ranks.run_on_main(lambda: time.sleep(4))
    if scenario == "fail" and ranks.rank == 1:
        raise DataError("an image is torn")
    if scenario == "hang" and ranks.rank == 1:
        time.sleep(1000)
    if scenario == "busy":
        ranks.run_on_main(lambda: time.sleep(1000))
    while True:
        ranks.sum(torch.ones(1))

try:
    with process_group(ranks_from_environment(), device=torch.device("cpu")) as ranks:
        with ranks.guard(timeout_seconds=2, on_loss=note):
            work(ranks, sys.argv[1])
except ProcessLostError as error:
    sys.exit(error.exit_status)
except VitralError as error:
    print(f"vitral: {error}", file=sys.stderr)
    sys.exit(error.exit_status)
"""


class Group:
    """Two processes of a script, without a launcher."""

    def __init__(self, scenario: str, folder: Path) -> None:
        self.folder = folder
        (folder / "script.py").write_text(SCRIPT)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(folder / "script.py"), scenario],
                cwd=folder, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]  # fmt: skip
        while not all((folder / f"ready-{rank}").exists() for rank in range(2)):
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.05)

    def end(self, rank: int, *, within: float) -> tuple[int, list[str]]:
        """Return the exit status of a process, and Vitral's lines on standard error."""
        _, errors = self.processes[rank].communicate(timeout=within)
        assert "Traceback" not in errors
        lines = [line for line in errors.splitlines() if line.startswith("vitral:")]
        return self.processes[rank].returncode, lines

    def reason(self, rank: int) -> str:
        return (self.folder / f"reason-{rank}").read_text()


@contextmanager
def group(scenario: str, folder: Path) -> Iterator[Group]:
    started = Group(scenario, folder)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.communicate()


def test_a_killed_process_ends_the_other_in_a_collective(tmp_path: Path) -> None:
    with group("loop", tmp_path) as processes:
        processes.processes[1].kill()
        reason = "rank 1 of 2 is gone (killed, perhaps for want of memory)"
        assert processes.end(0, within=5) == (1, [f"vitral: {reason}: run it again"])
        assert processes.reason(0) == reason


def test_a_stopped_process_ends_the_other_in_a_collective(tmp_path: Path) -> None:
    with group("loop", tmp_path) as processes:
        processes.processes[1].send_signal(signal.SIGSTOP)
        reason = "rank 1 of 2 has given no sign of life for 2 s (stopped, or out of reach)"
        assert processes.end(0, within=8) == (1, [f"vitral: {reason}: run it again"])
        assert processes.reason(0) == reason
        assert processes.end(1, within=1) == (-signal.SIGKILL, [])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_process_that_keeps_the_store_may_be_the_one(number: int, tmp_path: Path) -> None:
    with group("loop", tmp_path) as processes:
        processes.processes[0].send_signal(number)
        status, lines = processes.end(1, within=12)
        assert status == 1
        assert len(lines) == 1
        assert processes.reason(1).startswith("rank 0 of 2")


@pytest.mark.slow
def test_a_process_that_hangs_ends_all(tmp_path: Path) -> None:
    with group("hang", tmp_path) as processes:
        status, lines = processes.end(0, within=12)
        assert status == 1
        assert len(lines) == 1
        assert lines[0].startswith("vitral: rank 1 of 2 has not come on for 2 s")
        assert processes.end(1, within=6) == (1, [])


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_others_with_its_reason(tmp_path: Path) -> None:
    with group("fail", tmp_path) as processes:
        assert processes.end(1, within=5) == (DataError.exit_status, ["vitral: an image is torn"])
        assert processes.end(0, within=5) == (1, [])
        assert processes.reason(0) == "rank 1 of 2 has failed: an image is torn"


@pytest.mark.slow
def test_others_wait_for_what_the_first_process_does_for_all(tmp_path: Path) -> None:
    with group("patient", tmp_path) as processes:
        for rank in (0, 1):
            assert processes.end(rank, within=10) == (0, [])


@pytest.mark.slow
def test_a_process_that_is_busy_for_all_ends_too_when_another_is_killed(tmp_path: Path) -> None:
    with group("busy", tmp_path) as processes:
        processes.processes[1].kill()
        status, lines = processes.end(0, within=10)
        assert status == 1
        assert len(lines) == 1


@contextmanager
def watches(timeout_seconds: float = 60.0) -> Iterator[tuple[Watch, Watch]]:
    """Two watches in this process, neither of which ends it during a test."""
    store = dist.HashStore()
    both = [
        Watch(store, rank=rank, world_size=2, timeout_seconds=timeout_seconds) for rank in (0, 1)
    ]
    try:
        yield both[0], both[1]
    finally:
        for watch in both:
            watch.close()


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_torch_raises_for_a_lost_process_becomes_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reasons: list[str] = []

    def note(reason: str) -> str:
        reasons.append(reason)
        return ""

    with watches() as (first, second):
        second.fail(DataError("an image is torn"))
        reason = "rank 1 of 2 has failed: an image is torn"
        with pytest.raises(ProcessLostError, match=reason), first.guard(on_loss=note):
            raise RuntimeError(CLOSED)
    assert reasons == [reason]
    assert capsys.readouterr().err == ""  # who failed says it


def test_the_lowest_rank_that_is_not_at_fault_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    ranks: list[int] = []

    def note_as(rank: int) -> Callable[[str], str]:
        def note(_: str) -> str:
            ranks.append(rank)
            return "run it again"

        return note

    with (
        watches(timeout_seconds=1.2) as (first, second),
        first.guard(on_loss=note_as(0)),
        second.guard(on_loss=note_as(1)),
        second.waiting(),
    ):
        wait_for(lambda: ranks)
    stderr = capsys.readouterr().err
    assert ranks == [1]
    assert stderr.startswith("vitral: rank 0 of 2 has not come on for 1.2 s")
    assert stderr.endswith(": run it again\n")
    assert stderr.count("vitral:") == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a mistake"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("[enforce fail at gloo/transport/tcp/pair.cc:446] op.preamble.length"),
    ],
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with watches() as (first, _), pytest.raises(type(error)) as raised, first.guard():
        raise error
    assert raised.value is error


def test_a_state_that_can_t_be_written_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    def note(_: str) -> str:
        raise OSError("no space left")

    outputs: list[str] = []
    with watches(timeout_seconds=1.2) as (first, _), first.guard(on_loss=note), first.waiting():
        wait_for(lambda: outputs.append(capsys.readouterr().err) or any(outputs))
    assert "rank 1 of 2 has not come on" in "".join(outputs)
    assert "that could not be written down (no space left)" in "".join(outputs)
