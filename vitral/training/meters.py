"""Measurements between two logged rows of a run, and the rows made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vitral.data.decoded import DecodedStore
from vitral.data.profile import WAIT_SHARE, advise, describe_advice, profile_loading
from vitral.errors import DataError
from vitral.runtime.device import bytes_to_keep
from vitral.training.context import describe

if TYPE_CHECKING:
    from vitral.data.loader import TrainingBatches
    from vitral.training.building import Run
    from vitral.training.loop import StepResult

WARM_STEPS = 20
"""Steps after which waiting for data is no longer a start-up effect."""


@dataclass
class MetricSums:
    """Sums since the last row; saved, so that rows do not depend on interruptions."""

    loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    total: float = 0
    """Divisor of the sums: number of examples, or sum of their weights."""

    def add(self, result: StepResult) -> None:
        """Add the measurements of a step."""
        self.loss += result.loss_sum
        self.total += result.total
        for name, value in result.metric_sums.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value


def restore_sums(saved: list[dict[str, Any]], *, rank: int, world_size: int) -> MetricSums:
    """Return the saved sums of a process; if the world size changed, the first one gets all."""
    read = [_read(entry) for entry in saved]
    if len(read) == world_size:
        return read[rank]
    if rank:
        return MetricSums()
    return MetricSums(
        loss=math.fsum(sums.loss for sums in read),
        metrics={
            name: math.fsum(sums.metrics.get(name, 0.0) for sums in read)
            for name in read[0].metrics
        },
        total=read[0].total,
    )


def _read(saved: dict[str, Any]) -> MetricSums:
    """Return the sums of a saved record; older versions saved only the number of examples."""
    return MetricSums(
        saved["loss"], saved["metrics"], saved.get("total", saved.get("num_examples", 0))
    )


class Throughput:
    """Throughput between two rows."""

    def __init__(self) -> None:
        self._seconds = self._wait_seconds = 0.0
        self._num_examples = 0

    def add(self, result: StepResult) -> None:
        """Add the measurements of a step."""
        self._wait_seconds += result.wait_seconds
        self._num_examples += result.num_examples

    def add_seconds(self, seconds: float) -> None:
        """Add the duration of steps."""
        self._seconds += seconds

    def reading(self) -> dict[str, float]:
        """Return `images_per_second`, and `wait_share`, the share of time waiting for data."""
        seconds = max(self._seconds, 1e-9)
        return {
            "images_per_second": self._num_examples / seconds,
            "wait_share": min(1.0, self._wait_seconds / seconds),
        }


class TrainLog:
    """Logs sums and times of steps as rows, and advice if the model waits for data."""

    def __init__(self, run: Run, batches: TrainingBatches) -> None:
        """Create a log.

        Args:
            run: its fixed part.
            batches: of the training data.
        """
        self._run, self._batches = run, batches
        self._ranks = run.machine.ranks
        self._since, self._is_advised = Throughput(), False
        self.sums = MetricSums()
        self.seconds = 0.0
        """Of training, including those before an interruption."""
        self.first_step = 0
        """Step at which this process started."""

    def take(self, result: StepResult) -> None:
        """Add the measurements of a step."""
        self.sums.add(result)
        self._since.add(result)

    def take_seconds(self, seconds: float, *, of_steps: bool = True) -> None:
        """Add time spent in steps, or between them."""
        self.seconds += seconds
        if of_steps:
            self._since.add_seconds(seconds)

    def place(self, step: int, split: str) -> dict[str, Any]:
        """Return the first columns of a row: step, epoch and split."""
        return {"step": step, "epoch": step / self._batches.steps_per_epoch, "split": split}

    def write(self, step: int, last: StepResult) -> None:
        """Write a row of means over the steps since the last row and over all processes."""
        names = sorted(self.sums.metrics)
        values = [self.sums.loss, *(self.sums.metrics[name] for name in names)]
        columns = zip(*self._ranks.all_gather_object(values), strict=True)
        total = self.sums.total or 1
        means = dict(zip(["loss", *names], (math.fsum(c) / total for c in columns), strict=True))
        row = {
            **self.place(step, "train"),
            **means,
            "learning_rate": last.learning_rate,
            "grad_norm": last.grad_norm,
        }
        timing = self._since.reading()
        if self._ranks.is_main:
            self._run.folder.add_metrics(row)
            self._run.folder.add_timing({"step": step, "seconds": self.seconds, **timing})
        steps = self._run.resolved.config.train.steps
        self._run.view.update(step, steps, title="training", facts=describe({**row, **timing}))
        if timing["wait_share"] > WAIT_SHARE and self._is_warm(step) and not self._is_advised:
            self._is_advised = True
            if self._ranks.is_main:
                self._advise(timing["wait_share"])
        self.sums, self._since = MetricSums(), Throughput()

    def _is_warm(self, step: int) -> bool:
        """Return whether loading is past its start-up, and cached images have all been decoded."""
        steps = step - self.first_step
        is_kept = isinstance(self._batches.examples.store, DecodedStore)
        return steps > WARM_STEPS and (not is_kept or steps > self._batches.steps_per_epoch)

    def _advise(self, wait_share: float) -> None:
        """Log why the model waits for data, and what to do about it."""
        config, data = self._run.resolved.config, self._run.data
        how = config.preprocessing
        try:
            stages = profile_loading(
                self._batches.examples, preprocessing=how, settings=config.augment
            )
        except (DataError, OSError):
            return  # advice is no reason to stop
        total = data.decoded_bytes()
        most = bytes_to_keep(num_processes=self._ranks.world_size)
        fits = total is not None and 0 < total <= most
        advice = advise(stages, data=config.data, preprocessing=how, fits=fits)
        self._run.view.log(f"the model waits for data {100 * wait_share:.0f} % of the time")
        for sentence in describe_advice(stages, advice):
            self._run.view.log(f"  {sentence}")
