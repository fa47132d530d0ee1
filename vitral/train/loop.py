"""The training loop: one step after another, on one process or many."""

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitral.data.batches import to_model
from vitral.data.feed import feed
from vitral.data.loader import StepBatches, TrainingBatches
from vitral.data.loading import Batch
from vitral.data.order import torch_seed
from vitral.errors import DivergedError
from vitral.models.model import drop_path_from
from vitral.runtime.device import autocast
from vitral.runtime.ranks import Ranks
from vitral.spec.run import RunConfig
from vitral.train.average import WeightAverage
from vitral.train.best import BestModel
from vitral.train.diagnosis import find_first_not_finite
from vitral.train.optimizer import clip_gradients, set_learning_rate
from vitral.train.schedule import learning_rate_share


@dataclass(frozen=True)
class Machine:
    """Where and how the numbers are made."""

    device: torch.device
    precision: torch.dtype
    compile: bool
    ranks: Ranks


@dataclass
class TrainState:
    """What changes while training, and is saved."""

    objective: nn.Module
    """Owns the model as `.model`."""
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    best: BestModel | None = None
    """On the validation images; None: the last one is kept."""
    step: int = 0
    """Optimizer steps done."""


@dataclass(frozen=True)
class StepResult:
    """What one step measured, on this process."""

    loss_sum: float
    """Over this process's examples."""
    metric_sums: dict[str, float]
    num_examples: int
    """That counted, over all processes."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    wait_seconds: float
    """For data."""


def train_steps(
    state: TrainState, batches: TrainingBatches, *, config: RunConfig, machine: Machine
) -> Iterator[StepResult]:
    """Train from `state.step` to the end of the run, giving a result after each step.

    Raises:
        DivergedError: a loss or gradient is not finite; the state is that before the step.
    """
    forward = _prepare_forward(state.objective, machine)
    state.objective.train()
    clock = time.perf_counter()
    steps = feed(batches.steps(state.step, config.train.steps), device=machine.device)
    with closing(steps):
        for step_batches in steps:
            wait = time.perf_counter() - clock
            yield _train_step(
                state, forward, step_batches, batches, config=config, machine=machine, wait=wait
            )
            clock = time.perf_counter()


def _prepare_forward(objective: nn.Module, machine: Machine) -> nn.Module:
    forward: nn.Module = objective
    if machine.ranks.world_size > 1 and machine.device.type == "cuda":
        forward = nn.SyncBatchNorm.convert_sync_batchnorm(forward)  # there is none for the CPU
    if machine.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]
    return DistributedDataParallel(forward) if machine.ranks.world_size > 1 else forward


def _train_step(
    state: TrainState,
    forward: nn.Module,
    step_batches: StepBatches,
    batches: TrainingBatches,
    *,
    config: RunConfig,
    machine: Machine,
    wait: float,
) -> StepResult:
    step, loaded = step_batches.plan.step, step_batches.micro_batches
    counts = torch.tensor(step_batches.num_valid, device=machine.device)
    num_examples = int(machine.ranks.sum(counts))
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(loaded):
        last = number == len(loaded) - 1
        seed = torch_seed(config.train.seed, step, rank=machine.ranks.rank, micro_batch=number)
        own = _accumulate(
            forward,
            to_model(batch, device=machine.device, preprocessing=config.preprocessing),
            scale=machine.ranks.world_size / max(num_examples, 1),
            seed=seed,
            machine=machine,
            synchronise=last,
        )
        sums = {name: sums[name] + value if sums else value for name, value in own.items()}
    grad_norm = clip_gradients(state.objective.parameters(), max_norm=config.optimizer.clip_norm)
    measured = torch.stack([grad_norm, *sums.values()]).tolist()
    norm, values = measured[0], dict(zip(sums, measured[1:], strict=True))
    if not all(map(_is_finite, (norm, values["loss"]))):
        raise _diverged(state, step_batches, batches, config=config, machine=machine)
    learning_rate = config.optimizer.learning_rate * learning_rate_share(
        step, total_steps=config.train.steps, settings=config.schedule
    )
    set_learning_rate(state.optimizer, learning_rate)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average:
        state.average.update(_model_of(state.objective), step=step)
    state.step = step + 1
    loss_sum = values.pop("loss")
    return StepResult(loss_sum, values, num_examples, learning_rate, norm, wait)


def _accumulate(
    forward: nn.Module,
    batch: Batch,
    *,
    scale: float,
    seed: int,
    machine: Machine,
    synchronise: bool,
) -> dict[str, Tensor]:
    """Add a micro-batch's share to the gradients; return the sums of loss and metrics, detached.

    The loss is the sum over this micro-batch's examples times `scale`: over all micro-batches and
    processes, whose gradients are averaged, that is the mean over the whole batch.
    """
    torch.manual_seed(seed)
    is_ddp = isinstance(forward, DistributedDataParallel)
    with forward.no_sync() if is_ddp and not synchronise else nullcontext():  # type: ignore[operator]
        uniforms = batch.get("path_numbers")
        with drop_path_from(forward, uniforms), autocast(machine.device, machine.precision):
            losses, metrics = forward(batch)
        loss_sum = _sum_of_valid(losses.float(), batch["valid"])
        (loss_sum * scale).backward()
    sums = {
        name: _sum_of_valid(value.detach().float(), batch["valid"])
        for name, value in metrics.items()
    }
    return {"loss": loss_sum.detach(), **sums}


def _sum_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    return values.masked_fill(~valid, 0.0).sum()


def _is_finite(value: float) -> bool:
    return value - value == 0


def _model_of(objective: nn.Module) -> nn.Module:
    model = objective.model
    assert isinstance(model, nn.Module)
    return model


def _diverged(
    state: TrainState,
    step_batches: StepBatches,
    batches: TrainingBatches,
    *,
    config: RunConfig,
    machine: Machine,
) -> DivergedError:
    """Run the step's forward and backward pass again and say what went wrong first, and on what."""
    step = step_batches.plan.step
    state.optimizer.zero_grad(set_to_none=True)
    for number, batch in enumerate(step_batches.micro_batches):
        seed = torch_seed(config.train.seed, step, rank=machine.ranks.rank, micro_batch=number)
        moved = to_model(batch, device=machine.device, preprocessing=config.preprocessing)

        def compute_loss(moved: Batch = moved, seed: int = seed) -> Tensor:
            torch.manual_seed(seed)
            uniforms = moved.get("path_numbers")
            with (
                drop_path_from(state.objective, uniforms),
                autocast(machine.device, machine.precision),
            ):
                losses, _ = state.objective(moved)
            return _sum_of_valid(losses.float(), moved["valid"])

        culprit = find_first_not_finite(state.objective, compute_loss)
        if culprit:
            files = [batches.examples.name(index) for index in batch["index"].tolist()]
            shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
            return DivergedError(
                f"step {step}: not finite, first in {culprit}; the batch was {shown}: "
                "lower --learning-rate, or use --precision float32"
            )
    return DivergedError(
        f"step {step}: the gradient's norm is not finite, on another process or in the sum of "
        "micro-batches: lower --learning-rate, or use --precision float32"
    )
