"""A run that is killed and resumed is bitwise equal to an uninterrupted run."""

import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY_MODEL

import vitral
from vitral.errors import ModelFileError, RequestError
from vitral.files.rows import read_rows
from vitral.training.checkpoint import checkpoint_paths, save_checkpoint
from vitral.training.context import InterruptedRunError

STEPS = 18
OPTIONS: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 16,
    "seed": 3,
    "quiet": True,
    "settings": TINY_MODEL
    | {
        "checkpoint.every_steps": 1,
        "augment.mixup": 0.2,
        "model.dropout": 0.1,
        "model.drop_path": 0.3,
        "train.ema": 0.1,
        "train.micro_batch_size": 6,
        "evaluation.every_epochs": 1,
        "evaluation.keep_best": True,
        "train.log_every_steps": 4,
    },
}


def train_here(data: Path, output: Path, **options: Any) -> Any:
    return vitral.train("ViT-Mi/4", str(data), output=output, **(OPTIONS | options))


def train_in_child(data: Path, output: Path) -> None:
    import torch

    torch.set_num_threads(1)
    train_here(data, output)


def result_bytes(run: Path) -> dict[str, bytes]:
    """Return everything that must be equal: weights, average, optimizer, metrics."""
    last = run / "checkpoints" / f"step-{STEPS:08}"
    files = [
        run / "model" / "model.safetensors",
        last / "model" / "model.safetensors",
        last / "state" / "weights.safetensors",
        last / "state" / "optimizer.safetensors",
        last / "state" / "best.safetensors",
        run / "metrics.jsonl",
        run / "results.csv",
        run / "test_predictions.csv",
    ]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def children() -> Any:
    """Processes that have already imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "vitral.training.train", "vitral.figures.report", "support.runs"]
    )
    return context


@pytest.fixture(scope="module")
def unbroken(patterns: Path, children: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("unbroken") / "run"
    child = children.Process(target=train_in_child, args=(patterns, output))
    child.start()
    child.join()
    assert child.exitcode == 0
    return output


def kill_until_done(
    children: Any, data: Path, output: Path, *, kills: int, chances: random.Random, aim: bool
) -> int:
    """Start the run again and again, killing it at random moments; return how many kills hit.

    Args:
        children: makes processes.
        data: to train on.
        output: the run folder.
        kills: after so many the run is left alone.
        chances: of the moments.
        aim: wait for a checkpoint that is being written, and kill then.
    """
    hits = 0
    while True:
        child: ForkServerProcess = children.Process(target=train_in_child, args=(data, output))
        child.start()
        if hits < kills:
            if aim:
                wait_for_write(child, output / "checkpoints", patience=chances.uniform(0, 0.6))
            else:
                child.join(chances.uniform(0.1, 1.2))
            if child.is_alive():
                assert child.pid
                os.kill(child.pid, signal.SIGKILL)
                hits += 1
        child.join()
        if child.exitcode == 0:
            return hits
        assert child.exitcode == -signal.SIGKILL


def wait_for_write(child: ForkServerProcess, folder: Path, *, patience: float) -> None:
    """Wait until a checkpoint is being written, after some time."""
    until = time.monotonic() + patience
    while child.is_alive() and (
        time.monotonic() < until or not (folder.exists() and any(folder.glob(".aside-*")))
    ):
        time.sleep(0.0005)


@pytest.mark.parametrize("aim", [False, True], ids=["anywhere", "while writing"])
def test_killed_runs_end_as_the_unbroken_one(
    children: Any, patterns: Path, unbroken: Path, tmp_path: Path, aim: bool
) -> None:
    output = tmp_path / "run"
    hits = kill_until_done(
        children, patterns, output, kills=3, chances=random.Random(int(aim)), aim=aim
    )
    assert hits >= 1
    assert result_bytes(output) == result_bytes(unbroken)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_ends_beside_its_last_checkpoint_ends_as_the_unbroken_one(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class PowerCutError(BaseException):
        pass

    def save_and_end(*args: Any, progress: dict[str, Any], **kwargs: Any) -> None:
        is_last = progress["step"] == STEPS
        if is_last and moment == "before":
            raise PowerCutError
        save_checkpoint(*args, progress=progress, **kwargs)
        if is_last:
            raise PowerCutError

    train_here(patterns, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr("vitral.training.trainer.save_checkpoint", save_and_end)
        with pytest.raises(PowerCutError):
            train_here(patterns, tmp_path / "broken")
    train_here(patterns, tmp_path / "broken")
    assert result_bytes(tmp_path / "broken") == result_bytes(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("aim", [False, True], ids=["anywhere", "while writing"])
def test_many_kills_lose_nothing(
    children: Any, patterns: Path, unbroken: Path, tmp_path: Path, aim: bool
) -> None:
    chances, hits = random.Random(10 + aim), 0
    for number in range(8):
        output = tmp_path / f"run{number}"
        hits += kill_until_done(children, patterns, output, kills=12, chances=chances, aim=aim)
        assert result_bytes(output) == result_bytes(unbroken)
    assert hits >= 20


def train_with_signal(data: Path, output: Path, *, after: int, number: int = signal.SIGINT) -> None:
    """Train in this process and receive a signal once the checkpoint of a step exists."""
    import threading

    wanted = output / "checkpoints" / f"step-{after:08}"

    def send() -> None:
        while not wanted.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        train_here(data, output)
    finally:
        thread.join()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_call_goes_on(
    patterns: Path, tmp_path: Path, number: int, status: int
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train_here(patterns, straight)
    with pytest.raises(InterruptedRunError, match="the same command goes on from there") as stopped:
        train_with_signal(patterns, broken, after=5, number=number)
    assert stopped.value.exit_status == status
    left = json.loads((broken / "status.json").read_text())
    assert left["state"] == "interrupted"
    assert 5 <= left["step"] < STEPS
    assert checkpoint_paths(broken / "checkpoints")[0].name == f"step-{left['step']:08}"
    train_here(patterns, broken)
    assert result_bytes(broken) == result_bytes(straight)


@pytest.fixture(scope="module")
def stopped(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted; tests copy it."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(InterruptedRunError):
        train_with_signal(patterns, output, after=6)
    return output


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    import shutil

    return shutil.copytree(stopped, tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "train.seed was 3, now 4"),
        ({"batch_size": 20}, "train.batch_size was 16, now 20"),
        ({"learning_rate": 0.5}, "optimizer.learning_rate was"),
    ],
)
def test_going_on_with_other_settings_is_refused(
    patterns: Path, copy: Path, change: dict[str, Any], said: str
) -> None:
    before = (copy / "config.yaml").read_bytes()
    with pytest.raises(RequestError, match=said):
        train_here(patterns, copy, **change)
    assert (copy / "config.yaml").read_bytes() == before


def test_going_on_with_other_data_is_refused(copy: Path, tmp_path: Path) -> None:
    from support.runs import write_patterns

    other = write_patterns(tmp_path / "other.npz", seed=1)
    with pytest.raises(RequestError, match="the images have changed since"):
        train_here(other, copy)


def test_the_same_data_may_lie_elsewhere(patterns: Path, copy: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copy(patterns, tmp_path / "moved.npz")
    train_here(moved, copy)
    assert json.loads((copy / "status.json").read_text())["state"] == "done"


def test_resume_never_refuses_a_folder_with_a_run(patterns: Path, copy: Path) -> None:
    with pytest.raises(RequestError, match="holds a run and resume=never"):
        train_here(patterns, copy, resume="never")


def test_resume_by_path_goes_on_in_that_run(patterns: Path, copy: Path) -> None:
    newest = checkpoint_paths(copy / "checkpoints")[0]
    result = vitral.train("ViT-Mi/4", str(patterns), **(OPTIONS | {"resume": str(newest)}))
    assert result.path == copy
    assert json.loads((copy / "status.json").read_text())["state"] == "done"


def test_an_older_checkpoint_is_not_what_a_run_goes_on_from(patterns: Path, copy: Path) -> None:
    older = checkpoint_paths(copy / "checkpoints")[1]
    with pytest.raises(RequestError, match="a run goes on from its newest checkpoint"):
        vitral.train("ViT-Mi/4", str(patterns), **(OPTIONS | {"resume": str(older)}))


def test_resume_and_output_must_agree(patterns: Path, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="says otherwise: give one of them"):
        train_here(patterns, tmp_path / "elsewhere", resume=str(copy))


def test_what_a_killed_first_write_left_does_not_stop_a_run(patterns: Path, tmp_path: Path) -> None:
    (tmp_path / ".aside-9-config.yaml").write_text("half")
    train_here(patterns, tmp_path)


@pytest.mark.usefixtures("with_report")
def test_a_report_that_is_missing_is_drawn_again(patterns: Path, copy: Path) -> None:
    train_here(patterns, copy)
    (copy / "report.html").unlink()
    train_here(patterns, copy)
    assert (copy / "report.html").exists()


def test_resume_by_a_wrong_path_is_an_error(patterns: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is no run folder"):
        vitral.train("ViT-Mi/4", str(patterns), **(OPTIONS | {"resume": str(tmp_path)}))


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    patterns: Path, copy: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, before = checkpoint_paths(copy / "checkpoints")[:2]
    file = newest / "state" / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    harm = {
        "flip": lambda: file.write_bytes(content),
        "cut": lambda: file.write_bytes(content[:-10]),
        "remove": file.unlink,
        "manifest": lambda: (newest / "manifest.json").write_text("{"),
    }
    harm[damage]()
    train_here(patterns, copy, quiet=False)
    stderr = capsys.readouterr().err
    assert f"checkpoint {newest.name} is damaged and was passed over" in stderr
    assert f"going on from {before.name}" in stderr


def test_a_run_with_only_damaged_checkpoints_is_an_error(patterns: Path, copy: Path) -> None:
    for path in checkpoint_paths(copy / "checkpoints"):
        (path / "manifest.json").unlink()
    with pytest.raises(ModelFileError, match="no checkpoint in .* can be used"):
        train_here(patterns, copy)


def test_a_finished_run_gives_its_summary_again(
    patterns: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train_here(patterns, copy)
    stamp = (copy / "model" / "model.safetensors").stat().st_mtime_ns
    again = train_here(patterns, copy, quiet=False)
    assert again.summary == first.summary
    assert (copy / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert "holds this run, finished" in capsys.readouterr().err


def test_rows_after_the_checkpoint_are_cut_back(patterns: Path, copy: Path, unbroken: Path) -> None:
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 17, "split": "train", "loss": 0}\n{"step": 18, "spl')
    train_here(patterns, copy)
    steps = [row["step"] for row in read_rows(copy / "metrics.jsonl")]
    assert steps == [row["step"] for row in read_rows(unbroken / "metrics.jsonl")]


def test_a_folder_with_other_files_is_left_alone(patterns: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RequestError, match=r"has files that are no run's, such as thesis.tex"):
        train_here(patterns, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_two_processes_do_not_train_in_one_folder(patterns: Path, copy: Path) -> None:
    from vitral.training.run_folder import RunFolder

    lock = RunFolder(copy).lock()
    assert lock
    with lock, pytest.raises(RequestError, match="another process is training"):
        train_here(patterns, copy)


def test_a_changed_machine_is_said(
    patterns: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vitral.files.atomic import write_manifest

    newest = checkpoint_paths(copy / "checkpoints")[0]
    file = newest / "state" / "progress.json"
    progress = json.loads(file.read_text())
    progress["machine"]["threads"] = 77
    file.write_text(json.dumps(progress))
    write_manifest(newest)
    train_here(patterns, copy, quiet=False)
    assert "threads was 77, now" in capsys.readouterr().err


def test_too_little_space_is_told_before_training(
    patterns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from vitral.training import checkpoint

    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: real._replace(free=1000))
    with pytest.raises(RequestError, match="a checkpoint needs .* MB and .* has 0 MB free"):
        train_here(patterns, tmp_path / "run")


def test_only_the_newest_checkpoints_are_kept(stopped: Path) -> None:
    assert len(checkpoint_paths(stopped / "checkpoints")) == 2
