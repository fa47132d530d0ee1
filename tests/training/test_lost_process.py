"""A training process that dies or is stopped ends the others, as `torchrun` starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.runs import TINY_MODEL

TIMEOUT_SECONDS = 5


def process_of(rank: int, logs: Path, launcher: int) -> int:
    """Return the process id of a rank."""
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(pid)
    raise AssertionError(f"rank {rank} is not there: {list(logs.rglob('*'))}")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize(
    ("number", "rank", "reason"),
    [
        (signal.SIGKILL, 0, "rank 0 of 2 is gone"),
        (signal.SIGKILL, 1, "rank 1 of 2 is gone"),
        (signal.SIGSTOP, 1, "rank 1 of 2 has given no sign of life for 5 s"),
    ],
)
def test_a_lost_process_ends_the_run_with_a_reason(
    number: int, rank: int, reason: str, patterns: Path, tmp_path: Path
) -> None:
    output, logs = tmp_path / "run", tmp_path / "logs"
    settings = TINY_MODEL | {
        "train.timeout_seconds": TIMEOUT_SECONDS, "checkpoint.every_steps": 5,
    }  # fmt: skip
    launcher = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "--log-dir", str(logs), "--redirects", "3",
            "-m", "vitral", "train", str(patterns), "--model", "ViT-Mi/4", "--steps", "1000000",
            "--device", "cpu", "--output", str(output),
            *(f"--set={path}={value}" for path, value in settings.items()),
        ],
        stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        while not list(output.glob("checkpoints/step-*")):
            assert launcher.poll() is None
            time.sleep(0.05)
        os.kill(process_of(rank, logs, launcher.pid), number)
        assert launcher.wait(timeout=TIMEOUT_SECONDS + 15) != 0
    finally:
        launcher.terminate()  # it ends its processes
        launcher.wait()
    status = json.loads((output / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["reason"].startswith(reason)
    errors = next(logs.glob(f"**/{1 - rank}/stderr.log")).read_text()
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("vitral:")]
    assert len(lines) == 1
    assert "the same command goes on from its checkpoint of step" in lines[0]
