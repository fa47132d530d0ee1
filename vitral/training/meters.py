"""What is measured between two rows of a run, and the rows that are made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vitral.data.decoded import DecodedStore, bytes_to_keep
from vitral.data.profile import WAIT_SHARE, advise, describe_advice, profile_loading
from vitral.errors import DataError
from vitral.training.context import describe

if TYPE_CHECKING:
    from vitral.data.loader import TrainingBatches
    from vitral.training.building import Run
    from vitral.training.loop import StepResult

WARM_STEPS = 20
"""After which waiting for data is more than the beginning's."""


@dataclass
class MetricSums:
    """What has been measured since the last row; saved, so that rows do not depend on stops."""

    loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    total: float = 0
    """What the sums are divided by: examples, or their weights."""

    def add(self, result: StepResult) -> None:
        """Take a step in."""
        self.loss += result.loss_sum
        self.total += result.total
        for name, value in result.metric_sums.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value


def restore_sums(saved: list[dict[str, Any]], *, rank: int, world_size: int) -> MetricSums:
    """Give a process its sums back; on another number of processes the first one takes all."""
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
    """Return sums as they were saved; older versions counted examples alone."""
    return MetricSums(
        saved["loss"], saved["metrics"], saved.get("total", saved.get("num_examples", 0))
    )


class Throughput:
    """Readings between two rows."""

    def __init__(self) -> None:
        self._seconds = self._wait_seconds = 0.0
        self._num_examples = 0

    def add(self, result: StepResult) -> None:
        """Take a step in."""
        self._wait_seconds += result.wait_seconds
        self._num_examples += result.num_examples

    def add_seconds(self, seconds: float) -> None:
        """Take in time that steps took."""
        self._seconds += seconds

    def reading(self) -> dict[str, float]:
        """Return `images_per_second`, and `wait_share`, the share of the time that data took."""
        seconds = max(self._seconds, 1e-9)
        return {
            "images_per_second": self._num_examples / seconds,
            "wait_share": min(1.0, self._wait_seconds / seconds),
        }


class TrainLog:
    """Sums and times of the steps, written as rows; and advice where the model waits for data."""

    def __init__(self, run: Run, batches: TrainingBatches) -> None:
        """Begin a log.

        Args:
            run: what is fixed of it.
            batches: that it trains on.
        """
        self._run, self._batches = run, batches
        self._ranks = run.machine.ranks
        self._since, self._is_advised = Throughput(), False
        self.sums = MetricSums()
        self.seconds = 0.0
        """Of training, those before a stop among them."""
        self.first_step = 0
        """Done before this process began."""

    def take(self, result: StepResult) -> None:
        """Take in what a step measured."""
        self.sums.add(result)
        self._since.add(result)

    def take_seconds(self, seconds: float, *, of_steps: bool = True) -> None:
        """Take in time: of steps, or of what lies between them."""
        self.seconds += seconds
        if of_steps:
            self._since.add_seconds(seconds)

    def place(self, step: int, split: str) -> dict[str, Any]:
        """Return the beginning of a row: where in the run, and of which split."""
        return {"step": step, "epoch": step / self._batches.steps_per_epoch, "split": split}

    def write(self, step: int, last: StepResult) -> None:
        """Write a row of the mean over the steps since the last row, over all processes."""
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
        """Say whether loading has got going, and images that are kept have all been decoded."""
        steps = step - self.first_step
        is_kept = isinstance(self._batches.examples.store, DecodedStore)
        return steps > WARM_STEPS and (not is_kept or steps > self._batches.steps_per_epoch)

    def _advise(self, wait_share: float) -> None:
        """Say once why the model waits for data, and what to do about it."""
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
