"""Other machines: a compiled step, a GPU, several processes that receive a stop signal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import TINY_MODEL

import vitral
from vitral.files.rows import read_rows

OPTIONS: dict[str, Any] = {"batch_size": 16, "quiet": True, "settings": TINY_MODEL}


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_rows(run / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_run_is_the_plain_one_up_to_rounding(patterns: Path, tmp_path: Path) -> None:
    """In separate processes: the shape checks of the tests can't be compiled."""
    for how in ("on", "off"):
        command = [
            sys.executable, "-m", "vitral", "train", str(patterns), "--model", "ViT-Mi/4",
            "--steps", "12", "--compile", how, "--device", "cpu", "--output", str(tmp_path / how),
            *(f"--set={path}={value}" for path, value in TINY_MODEL.items()),
        ]  # fmt: skip
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr
    assert losses(tmp_path / "on") == pytest.approx(losses(tmp_path / "off"), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_run_on_a_gpu_is_the_one_on_the_cpu_up_to_rounding(
    patterns: Path, tmp_path: Path
) -> None:
    for device in ("cpu", "cuda"):
        vitral.train(
            "ViT-Mi/4", str(patterns), steps=20, device=device, precision="float32",
            output=tmp_path / device, **OPTIONS,
        )  # fmt: skip
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_bfloat16_on_a_gpu_learns_too(patterns: Path, tmp_path: Path) -> None:
    result = vitral.train(
        "ViT-Mi/4", str(patterns), epochs=25, learning_rate=5e-3, device="cuda",
        precision="bfloat16", output=tmp_path / "run", **OPTIONS,
    )  # fmt: skip
    assert result.summary["accuracy"] > 0.8


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(patterns: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "vitral", "train", str(patterns), "--model", "ViT-Mi/4", "--steps", "400",
        "--output", str(output), *(f"--set={path}={value}" for path, value in TINY_MODEL.items()),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(launcher, stderr=subprocess.PIPE, text=True, env=environment)
    while not (output / "timings.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    status = json.loads((output / "status.json").read_text())
    assert status["state"] == "interrupted", errors
    assert 0 < status["step"] < 400
    finished = subprocess.run(launcher, capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert f"going on from step-{status['step']:08}" in finished.stderr
    assert json.loads((output / "summary.json").read_text())["num_examples"] == 20


@pytest.mark.slow
def test_a_mistake_on_two_processes_is_told_by_both_without_a_wait(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", "-m", "vitral", "train", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 1
    assert finished.stderr.count("has no images that can be used") >= 1
    assert "gloo" not in finished.stderr
