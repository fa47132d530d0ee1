"""The contract of objectives, tested with six that use all of it (`example_objectives`)."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.example_objectives import EXAMPLES, Distilled, train_example
from support.runs import stopped_at
from torch import multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from vitral.files.rows import read_rows
from vitral.training.checkpoint import load_newest
from vitral.training.loop import StartedStep, StepRunner

NAMES = tuple(EXAMPLES)
STEPS = 6
Run = Callable[[str], Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A function that trains an example in one process, without micro-batches, once."""
    results: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in results:
            output = tmp_path_factory.mktemp("whole") / name
            results[name] = train_example(name, output, data__workers=0).path
        return results[name]

    return run


def tensors_of_run(run: Path) -> dict[str, torch.Tensor]:
    """Return the last checkpoint's tensors except the moments, whose noise Adam amplifies."""
    saved, complaints = load_newest(run / "checkpoints")
    assert saved and not complaints
    return {n: t for n, t in saved.tensors.items() if not n.startswith("optimizer/")}


def train_losses(run: Path) -> list[float]:
    rows = read_rows(run / "metrics.jsonl")
    return [row["loss"] for row in rows if row["split"] == "train"]


def assert_equal_training(one: Path, other: Path) -> None:
    """Assert that two runs are as equal as interface.md promises."""
    np.testing.assert_allclose(train_losses(other), train_losses(one), rtol=1e-5)
    first, second = tensors_of_run(one), tensors_of_run(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        difference = (tensor.float() - second[name].float()).abs()
        if name.endswith("qkv.bias"):  # the key's true gradient is zero; Adam amplifies its noise
            width = len(difference) // 3
            difference = torch.cat([difference[:width], difference[2 * width :]])
        assert difference.max() < 1e-5, name


def files_of_run(run: Path) -> dict[str, bytes]:
    """Return everything that must be bitwise equal: weights, state, metrics."""
    paths = [*run.rglob("*.safetensors"), run / "metrics.jsonl", run / "results.csv"]
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(paths)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("with_report")
def test_the_loss_falls_and_its_own_figure_is_primary(whole: Run, name: str) -> None:
    run = whole(name)
    rows = read_rows(run / "metrics.jsonl")
    scored = [row for row in rows if row["split"] == "validation"]
    primary = EXAMPLES[name].primary
    assert scored and all(primary in row for row in scored)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metric"] == primary
    assert summary[primary] is not None
    assert summary["num_examples"] > 0
    assert "best_step" in summary
    assert (run / "report.html").exists()
    losses = train_losses(run)
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] or name == "distilled"  # whose goal moves


@pytest.mark.parametrize("name", NAMES)
def test_all_that_learns_is_trained_and_saved(whole: Run, name: str) -> None:
    """An optimizer of only the model's parameters would not change the rest."""
    first, last = (load_newest_at(whole(name), step) for step in (STEPS // 2, STEPS))
    frozen = {"objective/last.weight"} if name == "distilled" else set()
    trained = [n for n in last if n.startswith("objective/") and last[n].is_floating_point()]
    others = [n for n in trained if not n.startswith("objective/model.")]
    assert bool(others) == (name != "regression")
    for tensor_name in set(trained) - frozen:
        assert not torch.equal(first[tensor_name], last[tensor_name]), tensor_name
        assert torch.isfinite(last[tensor_name]).all()


def load_newest_at(run: Path, step: int) -> dict[str, torch.Tensor]:
    from vitral.training.checkpoint import _load

    return _load(run / "checkpoints" / f"step-{step:08}").tensors


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_equal_the_whole_batch(whole: Run, tmp_path: Path, name: str) -> None:
    parts = train_example(name, tmp_path, train__micro_batch_size=6, data__workers=2)
    assert_equal_training(whole(name), parts.path)


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_with_other_workers_goes_on_to_the_same_bits(
    whole: Run, tmp_path: Path, name: str
) -> None:
    with stopped_at(4):
        train_example(name, tmp_path, data__workers=2)
    train_example(name, tmp_path, data__workers=2)
    assert files_of_run(tmp_path) == files_of_run(whole(name))


class WaitingOperations(TorchDispatchMode):
    """Records operations that would make the host wait for a GPU: reading a value or a size."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in self.NAMES or by_mask:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Measurements of a step are read only after the next one has started."""
    start, found = StepRunner.start, list[list[str]]()

    def watched(*args: Any, **kwargs: Any) -> StartedStep:
        with WaitingOperations() as operations:
            started = start(*args, **kwargs)
        found.append(operations.found)
        return started

    monkeypatch.setattr(StepRunner, "start", watched)
    train_example(name, tmp_path, steps=2, data__workers=0)
    # On a CPU, where the latch is at hand, the average of the weights looks at it.
    at_hand = ["_local_scalar_dense"] if name == "regression" else []
    assert found == [at_hand, at_hand]


def test_what_would_wait_is_seen() -> None:
    numbers = torch.arange(3.0)
    with WaitingOperations() as operations:
        float(numbers[1]), bool(numbers.sum() > 1), numbers[numbers > 1], numbers.nonzero()
    assert operations.found == ["_local_scalar_dense"] * 2 + ["index", "nonzero"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Job:
    """A run of a group of processes."""

    name: str
    output: Path
    settings: Mapping[str, Any]
    steps: int = STEPS


def do_jobs(rank: int, world_size: int, ports: list[int], jobs: list[Job]) -> None:
    """Run in one of several processes: execute the given jobs one after the other."""
    torch.set_num_threads(1)
    for port, job in zip(ports, jobs, strict=True):
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        train_example(job.name, job.output, steps=job.steps, **job.settings)


def spawn(jobs: list[Job], *, world_size: int) -> None:
    """Execute all jobs in one spawned group of processes."""
    multiprocessing.start_processes(
        do_jobs,
        args=(world_size, [free_port() for _ in jobs], jobs),
        nprocs=world_size,
        start_method="spawn",
    )


FAST = {
    2: {"train__micro_batch_size": 5, "data__workers": 1},
    3: {"data__workers": 4},
}
"""By the number of processes."""


@pytest.fixture(scope="module", params=FAST, ids=lambda size: f"{size} processes")
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All examples, each trained by several processes."""
    root = tmp_path_factory.mktemp("group")
    size = request.param
    spawn([Job(name, root / name, FAST[size]) for name in NAMES], world_size=size)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_processes_train_as_one(whole: Run, group: Path, name: str) -> None:
    assert_equal_training(whole(name), group / name)


def test_a_part_is_published_beside_the_model(whole: Run) -> None:
    run = whole("masked")
    published = load_file(run / "parts" / "decoder" / "model.safetensors")
    assert published.keys() == {"weight", "bias"}
    assert published["weight"].shape == (16, 16)


def test_the_result_is_the_teacher_and_loads_as_a_model(whole: Run) -> None:
    import vitral

    run = whole("distilled")
    model = vitral.load_model(run)
    assert model.config.num_classes == 0
    assert model.verify().agrees
    saved = load_newest_at(run, STEPS)
    student = {n: t for n, t in saved.items() if n.startswith("objective/model.")}
    teacher = {n: t for n, t in saved.items() if n.startswith("objective/teacher.")}
    assert student and len(student) == len(teacher)


def test_the_gradient_of_a_layer_may_be_dropped_at_first(whole: Run) -> None:
    assert Distilled.frozen_steps < STEPS // 2
    early = load_newest_at(whole("distilled"), STEPS // 2)
    steps = early["optimizer/step/last.weight"], early["optimizer/step/hidden.weight"]
    assert [int(step) for step in steps] == [STEPS // 2 - Distilled.frozen_steps, STEPS // 2]


def test_weight_decay_follows_the_objectives_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[float]] = []
    after = Distilled.after_step

    def watch(self: Distilled, at: Any) -> None:
        seen.append({group["weight_decay"] for group in at.optimizer.param_groups})
        after(self, at)

    monkeypatch.setattr(Distilled, "after_step", watch)
    train_example("distilled", tmp_path, steps=2)
    assert seen == [{0.04, 0.0}, {0.04 + 0.36 / 2, 0.0}]


def test_temperature_and_teacher_follow_the_objectives_schedules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher moves towards its student by the share of each step, and by nothing else."""
    seen: list[float] = []
    after = Distilled.after_step

    def watch(self: Distilled, at: Any) -> None:
        seen.append(self.temperature)
        before = self.teacher_last.weight.clone()
        after(self, at)
        share = {0: 0.11, 1: 0.06}[at.step]
        moved = torch.lerp(before, self.last.weight.detach(), share)
        torch.testing.assert_close(self.teacher_last.weight, moved)

    monkeypatch.setattr(Distilled, "after_step", watch)
    train_example("distilled", tmp_path, steps=2)
    assert seen == pytest.approx([0.1, 0.15])


def test_masks_follow_their_images(whole: Run) -> None:
    rows = read_rows(whole("aligned") / "metrics.jsonl")
    agreement = [row["agreement"] for row in rows if row["split"] == "train"]
    assert agreement == [1.0] * STEPS


def test_a_mask_hides_the_share_that_the_settings_say(whole: Run) -> None:
    rows = read_rows(whole("masked") / "metrics.jsonl")
    assert {row["hidden"] for row in rows if row["split"] == "train"} == {0.75}


LONG = 20
"""Steps, as the promise says."""
MICRO_BATCH_SIZES = (0, 2, 6)
WORKERS = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All examples over 20 steps in one process, with and without a stop half-way."""
    root = tmp_path_factory.mktemp("alone")
    for name in NAMES:
        train_example(name, root / name, steps=LONG, data__workers=0)
        with stopped_at(11):
            train_example(name, root / "stopped" / name, steps=LONG, data__workers=0)
    return root


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_micro_batches_and_workers_change_nothing(
    alone: Path, tmp_path: Path, world_size: int
) -> None:
    """All combinations, and resuming a run that was started by one process."""
    jobs = [
        Job(
            name,
            tmp_path / f"{name}-{size}-{workers}",
            {"train__micro_batch_size": size, "data__workers": workers},
            steps=LONG,
        )
        for name in NAMES
        for size in MICRO_BATCH_SIZES
        for workers in WORKERS
    ]
    for name in NAMES:
        output = tmp_path / f"{name}-stopped"
        shutil.copytree(alone / "stopped" / name, output)
        jobs.append(Job(name, output, {"data__workers": 2}, steps=LONG))
    spawn(jobs, world_size=world_size)
    for job in jobs:
        assert_equal_training(alone / job.name, job.output)
