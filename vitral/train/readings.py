"""What is measured between two rows of a run: sums that are saved, and clock readings."""

import math
from dataclasses import dataclass, field
from typing import Any

from vitral.train.loop import StepResult


@dataclass
class Sums:
    """What has been measured since the last row; saved, so that rows do not depend on stops."""

    loss: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    num_examples: int = 0

    def add(self, result: StepResult) -> None:
        """Take a step in."""
        self.loss += result.loss_sum
        self.num_examples += result.num_examples
        for name, value in result.metric_sums.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value


def own_sums(saved: list[dict[str, Any]], *, rank: int, world_size: int) -> Sums:
    """Give a process its sums back; on another number of processes the first one takes all."""
    if len(saved) == world_size:
        return Sums(**saved[rank])
    if rank:
        return Sums()
    names = saved[0]["metrics"]
    return Sums(
        loss=math.fsum(own["loss"] for own in saved),
        metrics={name: math.fsum(own["metrics"].get(name, 0.0) for own in saved) for name in names},
        num_examples=saved[0]["num_examples"],
    )


class Clock:
    """Readings between two rows."""

    def __init__(self) -> None:
        self._seconds = self._wait_seconds = 0.0
        self._num_examples = 0

    def add(self, result: StepResult, seconds: float) -> None:
        """Take a step in that took so long."""
        self._seconds += seconds
        self._wait_seconds += result.wait_seconds
        self._num_examples += result.num_examples

    def reading(self) -> dict[str, float]:
        """Return `images_per_second`, and `wait_share`, the share of the time that data took."""
        seconds = max(self._seconds, 1e-9)
        return {
            "images_per_second": self._num_examples / seconds,
            "wait_share": min(1.0, self._wait_seconds / seconds),
        }
