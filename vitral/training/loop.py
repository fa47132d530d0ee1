"""One optimizer step: forward, backward, clip, update; on one process or many.

Nothing in a step waits for the device: its measurements are read after the next step has started
(`StepRunner.read`). A step that is not finite sets a latch on the device, which blocks all further
updates until the host has read it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitral.config.run import RunConfig
from vitral.data.device_transforms import prepare_on_device
from vitral.data.loader import StepBatches, TrainingBatches
from vitral.data.order import torch_seed
from vitral.data.workers import Batch
from vitral.errors import DivergedError, RequestError
from vitral.runtime.device import autocast
from vitral.runtime.distributed import Machine
from vitral.training.anomaly import find_first_nonfinite
from vitral.training.coupling import backward_coupled, drawing_from
from vitral.training.objectives.base import (
    Objective,
    StepInfo,
    by_part,
    checked_loss,
    checked_weights,
)
from vitral.training.optimizer import clip_gradients, learning_rate_share, set_learning_rate
from vitral.training.parallel import uncompiled, unsynchronised
from vitral.training.state import TrainState

_COUPLED = 1 << 20
"""Used as the micro-batch number in the seed of `couple`, which sees the whole step."""


@dataclass(frozen=True)
class StepResult:
    """Measurements of one step, on this process."""

    loss_sum: float
    """Over this process's examples."""
    metric_sums: dict[str, float]
    total: float
    """Divisor of the sums over all processes: number of examples, or sum of their weights."""
    num_examples: int
    """Valid examples over all processes."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    wait_seconds: float
    """Time spent waiting for data."""
    stop: int
    """Number of the signal that requested a stop on some process; 0: none."""


@dataclass(frozen=True)
class StartedStep:
    """A step whose work has been queued on the device."""

    batches: StepBatches
    metric_names: tuple[str, ...]
    """Names of the last values that `fetch` returns."""
    fetch: Callable[[], list[float]]
    """Waits for the device."""
    learning_rate: float
    wait_seconds: float
    buffers: Mapping[str, Mapping[str, Tensor]]
    """The objective's buffers before the step, by module and name."""
    is_main: bool
    """Whether the optimizer had no state before the step."""


class StepRunner:
    """Runs the steps of a state, one after the other."""

    def __init__(
        self,
        state: TrainState,
        forward: nn.Module,
        batches: TrainingBatches,
        *,
        config: RunConfig,
        machine: Machine,
    ) -> None:
        """Store the parts of a run.

        Args:
            state: changed by each step.
            forward: from `parallelise`.
            batches: of the run.
            config: of the run.
            machine: device, precision and processes.
        """
        self._state, self._forward, self._batches = state, forward, batches
        self._config, self._machine = config, machine
        self._latch = torch.zeros((), device=machine.device)
        """1 once a step was not finite: no more updates."""
        # Collected once: walking all modules takes as long as the update of a small model.
        objective = state.objective
        self._parameters = dict(objective.named_parameters())
        self._with_buffers = {n: m for n, m in objective.named_modules() if m._buffers}
        trained = {p for group in state.optimizer.param_groups for p in group["params"]}
        self._untrained = {n: p for n, p in self._parameters.items() if p not in trained}
        self._has_kernel = machine.device.type in ("cpu", "cuda")
        if self._has_kernel:  # fused kernels skip the update if this is 1
            state.optimizer.found_inf = self._latch  # type: ignore[attr-defined]

    def start(
        self, step_batches: StepBatches, *, wait_seconds: float = 0.0, stop: int = 0
    ) -> StartedStep:
        """Queue a step on the device; the state is afterwards that after the step.

        Args:
            step_batches: of the state's next step.
            wait_seconds: time spent waiting for them.
            stop: signal that requested a stop of this process; passed on to all processes.
        """
        state, config, step = self._state, self._config, step_batches.plan.step
        buffers = self._copy_buffers()
        learning_rate = config.optimizer.learning_rate * learning_rate_share(
            step, total_steps=config.train.steps, settings=config.schedule
        )
        set_learning_rate(state.optimizer, learning_rate)
        finite = 1 - self._latch
        state.objective.before_step(self._info(step, finite))
        sums, totals = self._backward(step_batches)
        self._check_trained()
        state.objective.on_gradients(self._info(step, finite))
        norm = clip_gradients(self._parameters.values(), max_norm=config.optimizer.clip_norm)
        stop_flag = self._close_latch(norm, sums["loss"], stop=stop)
        is_main = not state.optimizer.state
        self._update()
        finite = 1 - self._latch
        if state.average:
            state.average.update(state.objective, step=step, finite=finite)
        state.objective.after_step(self._info(step, finite))
        state.step = step + 1
        loss = sums.pop("loss")
        measured = [norm, stop_flag, self._latch, totals[0], totals[-1], loss, *sums.values()]
        return StartedStep(
            step_batches,
            tuple(sums),
            _fetch(measured),
            learning_rate,
            wait_seconds,
            buffers,
            is_main,
        )

    def read(self, started: StartedStep) -> StepResult:
        """Wait for the oldest unread step and return its measurements.

        Raises:
            DivergedError: its loss or gradient is not finite; the state is that before the step.
        """
        with self._machine.ranks.waiting():
            norm, stop, latch, total, examples, loss, *metrics = started.fetch()
        if latch:
            self._undo(started)
            raise self._diverged(started.batches)
        return StepResult(
            loss_sum=loss,
            metric_sums=dict(zip(started.metric_names, metrics, strict=True)),
            total=total,
            num_examples=round(examples),
            learning_rate=started.learning_rate,
            grad_norm=norm,
            wait_seconds=started.wait_seconds,
            stop=round(stop),
        )

    def _info(self, step: int, finite: Tensor) -> StepInfo:
        return StepInfo(
            step,
            self._config.train.steps,
            self._batches.steps_per_epoch,
            self._state.optimizer,
            finite,
        )

    def _backward(self, step_batches: StepBatches) -> tuple[dict[str, Tensor], Tensor]:
        """Accumulate the gradients of the step.

        Returns:
            The sums of loss and metrics over this process's examples, and a tensor with their
            divisors and the number of examples, both over all processes.
        """
        if self._state.objective.coupling == "batch":
            totals = self._totals(step_batches, [])
            coupled = backward_coupled(
                self._state.objective,
                [
                    (functools.partial(self._prepare, batch), self._seed(step_batches, number))
                    for number, batch in enumerate(step_batches.micro_batches)
                ],
                rows_of_ranks=self._batches.rows_of_ranks(step_batches.plan.step),
                order=self._batches.order_of_rows(step_batches.plan.step),
                num_valid=step_batches.num_valid,
                seed=torch_seed(
                    self._config.train.seed, step_batches.plan.step, rank=0, micro_batch=_COUPLED
                ),
                machine=self._machine,
            )
            return coupled, totals
        is_weighted = self._state.objective.coupling == "weighted"
        totals = self._totals(step_batches, self._weights(step_batches) if is_weighted else [])
        parts, examples = totals[:-1], totals[-1]
        divisors = torch.where(parts > 0, parts, 1.0)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(step_batches.micro_batches):
            found = self._accumulate(
                self._prepare(batch),
                self._machine.ranks.world_size / divisors,
                seed=self._seed(step_batches, number),
                synchronise=number == len(step_batches.micro_batches) - 1,
            )
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
        loss = sums.pop("loss")
        if len(parts) == 1:
            return {"loss": loss[0], **sums}, totals
        # The mean over steps weights a loss of several parts by the examples of each step.
        by_example = {name: value * (examples / divisors[0]) for name, value in sums.items()}
        loss = (loss / divisors).sum() * examples
        return {"loss": loss, **by_example}, torch.stack([examples, examples])

    def _prepare(self, batch: Batch) -> Batch:
        return prepare_on_device(
            batch, device=self._machine.device, preprocessing=self._config.preprocessing
        )

    def _seed(self, step_batches: StepBatches, number: int) -> int:
        return torch_seed(
            self._config.train.seed,
            step_batches.plan.step,
            rank=self._machine.ranks.rank,
            micro_batch=number,
        )

    @torch.no_grad()
    def _weights(self, step_batches: StepBatches) -> list[Tensor]:
        """Return the sums of weights of each micro-batch, (parts,), before any forward pass."""
        sums = []
        for batch in step_batches.micro_batches:  # prepared one by one, here and again for the loss
            prepared = self._prepare(batch)
            weights = self._state.objective.weights(prepared)
            weights = checked_weights(self._state.objective, weights, rows=len(prepared["valid"]))
            sums.append(_sum_of_valid(weights, prepared["valid"]))
        return sums

    def _totals(self, step_batches: StepBatches, weights: list[Tensor]) -> Tensor:
        """Return the divisor of each loss part, then the number of examples, over all processes."""
        device = self._machine.device
        examples = torch.full((1,), float(step_batches.num_valid), device=device)
        parts = torch.stack(weights).sum(dim=0) if weights else examples
        return self._machine.ranks.sum(torch.cat([parts, examples]))

    def _accumulate(
        self, batch: Batch, scales: Tensor, *, seed: int, synchronise: bool
    ) -> dict[str, Tensor]:
        """Accumulate the gradients of a micro-batch; return sums of loss, (parts,), and metrics.

        The loss is the sum over the examples of this micro-batch times the scale. Over all
        micro-batches and processes, whose gradients are averaged, this is the mean over the batch.
        """
        forward, machine = self._forward, self._machine
        torch.manual_seed(seed)
        is_ddp = isinstance(forward, DistributedDataParallel)
        with forward.no_sync() if is_ddp and not synchronise else nullcontext():  # type: ignore[operator]
            with drawing_from(forward, batch), autocast(machine.device, machine.precision):
                values, metrics = checked_loss(
                    self._state.objective, forward(batch), rows=len(batch["valid"])
                )
            parts = _sum_of_valid(by_part(values.float()), batch["valid"])
            if parts.shape != scales.shape:
                raise RequestError(
                    f"{type(self._state.objective).__name__} has a loss of {len(parts)} parts and "
                    f"weights of {len(scales)}: give each part its own weights"
                )
            (parts * scales).sum().backward()
        return {"loss": parts.detach()} | {
            name: _sum_of_valid(value.detach().float(), batch["valid"])
            for name, value in metrics.items()
        }

    def _check_trained(self) -> None:
        """Refuse a gradient that no update uses: of a layer that was frozen from the start."""
        for name, parameter in self._untrained.items():
            if parameter.grad is not None:
                raise RequestError(
                    f"{name} has a gradient and is not trained, since it was frozen when the run "
                    "began: freeze it in before_step, or drop its gradient in on_gradients"
                )

    def _close_latch(self, norm: Tensor, loss_sum: Tensor, *, stop: int) -> Tensor:
        """Set the latch on all processes if the step is not finite.

        Returns:
            The signal that requested a stop on some process, 0 for none, on the device.
        """
        is_bad = ~(torch.isfinite(norm) & torch.isfinite(loss_sum))
        stop_flag = torch.full((), float(stop), device=self._machine.device)
        flags = self._machine.ranks.max(torch.stack([is_bad.float(), stop_flag]))
        self._latch.copy_(torch.maximum(self._latch, flags[0]))
        return flags[1]

    def _update(self) -> None:
        optimizer = self._state.optimizer
        if self._has_kernel or not self._latch:  # without such a kernel the host must wait
            optimizer.step()
        self._drop_gradients()

    def _drop_gradients(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    def _copy_buffers(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of the current buffers, by module and name: a module may replace them."""
        return {
            path: {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)}
            for path, module in self._with_buffers.items()
        }

    def _put_buffers(self, copies: Mapping[str, Mapping[str, Tensor]]) -> None:
        for path, module in self._with_buffers.items():
            for name, buffer in module.named_buffers(recurse=False):
                buffer.copy_(copies[path][name])

    def _undo(self, started: StartedStep) -> None:
        """Reset the state to that before a step whose update was skipped."""
        state = self._state
        state.step = started.batches.plan.step
        self._put_buffers(started.buffers)
        if started.is_main:
            state.optimizer.state.clear()
        self._drop_gradients()

    def _diverged(self, step_batches: StepBatches) -> DivergedError:
        """Repeat the step's passes and return an error that names the first culprit and the batch.

        The state is not changed.
        """
        step, objective = step_batches.plan.step, self._state.objective
        buffers = self._copy_buffers()
        objective.before_step(self._info(step, torch.ones_like(self._latch)))
        culprit, files = None, list[str]()
        for number, batch in enumerate(step_batches.micro_batches):
            prepared, seed = self._prepare(batch), self._seed(step_batches, number)

            def compute_loss(prepared: Batch = prepared, seed: int = seed) -> Tensor:
                machine = self._machine
                torch.manual_seed(seed)
                with drawing_from(objective, prepared), autocast(machine.device, machine.precision):
                    return _loss_alone(objective, prepared)

            with uncompiled(objective), unsynchronised(objective):
                try:
                    culprit = find_first_nonfinite(objective, compute_loss)
                except Exception:  # such as BatchNorm on a single row
                    culprit = None
            if culprit:
                files = self._batches.names_of(batch)
                break
        self._drop_gradients()
        self._put_buffers(buffers)
        if culprit is None:
            return DivergedError(
                f"step {step}: the loss or the gradient's norm is not finite, on another process "
                "or over all micro-batches: lower --learning-rate, or use --precision float32"
            )
        shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
        return DivergedError(
            f"step {step}: not finite, first in {culprit}; the batch was {shown}: "
            "lower --learning-rate, or use --precision float32"
        )


def _loss_alone(objective: Objective, batch: Batch) -> Tensor:
    """Return the summed loss of a single micro-batch."""
    valid = batch["valid"]
    if objective.coupling == "batch":
        rows = objective.encode(batch)
        return objective.couple({n: t[valid] for n, t in rows.items()}).values.float().sum()
    values, _ = objective(batch)
    return _sum_of_valid(by_part(values.float()), valid).sum()


def _sum_of_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Return the sum over valid rows of (N,) or (N, parts)."""
    hidden = ~valid if values.ndim == 1 else ~valid.unsqueeze(1)
    return values.masked_fill(hidden, 0.0).sum(dim=0)


def _fetch(measured: Sequence[Tensor]) -> Callable[[], list[float]]:
    """Start copying numbers to the host; return a function that waits for them."""
    stacked = torch.stack([value.detach().float() for value in measured])
    if stacked.device.type != "cuda":
        return stacked.tolist
    pinned = torch.empty(stacked.shape, pin_memory=True)
    pinned.copy_(stacked, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(stacked.device))

    def wait() -> list[float]:
        event.synchronize()
        values: list[float] = pinned.tolist()
        return values

    return wait
