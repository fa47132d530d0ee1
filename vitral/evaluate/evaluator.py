"""Evaluators: figures of a model on a split, batch by batch, on any number of processes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.needs import CLASSIFICATION, Needs
from vitral.evaluate.forward import Apply, forward_examples
from vitral.runtime.distributed import Distributed

if TYPE_CHECKING:
    from vitral.config.preprocessing import Preprocessing
    from vitral.data.dataset import ImageDataset
    from vitral.data.examples import Examples
    from vitral.data.workers import Batch


class Metric(NamedTuple):
    """A figure that models are judged by."""

    name: str
    """As in the rows and the summary."""
    larger_is_better: bool = True


LOSS = Metric("loss", larger_is_better=False)


@dataclass(frozen=True)
class Scored:
    """The model and data that were scored, for code that writes the files behind a score."""

    model: nn.Module
    """In evaluation mode, with the weights that were scored."""
    data: ImageDataset
    split: str
    preprocessing: Preprocessing
    device: torch.device

    @property
    def examples(self) -> Examples:
        """The examples of the split."""
        return self.data.splits[self.split]


class Evaluator(ABC):
    """Accumulates the outputs of a model and computes figures from them.

    It holds no model and stays on the CPU: each process fills its own, and they are merged.
    """

    primary: Metric
    """The figure that a run is judged by: its best model, its headline, its row of results."""

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}
        """Why an example could not be scored, by index."""

    def wants(self, output: str) -> bool:
        """Return whether an output is read; others stay on the device."""
        return True

    @abstractmethod
    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Add a batch as it was loaded and its outputs, both on the CPU.

        Rows whose `valid` is false are ignored.
        """

    @abstractmethod
    def merge(self, other: Evaluator) -> None:
        """Add the contents of an evaluator of other examples."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """Return the figures by name, including `primary` (None where nothing was scored).

        Includes `num_examples`. Names of values that belong to a figure start with its name, such
        as `accuracy_interval`.
        """

    def finish(self, folder: Path, scored: Scored) -> dict[str, Any]:
        """Write the files behind the score into a run's folder; return additional figures.

        Called once, on the main process, after everything was merged. Reports know the file types;
        `vitral.figures` draws them.
        """
        return {}


class MeanEvaluator(Evaluator):
    """Means over examples of every output that is one number an example, such as the loss.

    If there is an output `weight`, the others are sums over the units of an example, such as its
    pixels: they are divided by the sum of weights. A mean is exact: it does not depend on the order
    of examples or the number of processes.
    """

    def __init__(self, primary: Metric = LOSS, *, names: tuple[str, ...] | None = None) -> None:
        """Choose the outputs to average.

        Args:
            primary: the figure that models are judged by.
            names: of the outputs; None: all of shape (N,).
        """
        super().__init__()
        self.primary = primary
        self.names = names
        self.columns: dict[str, list[np.ndarray]] = {}
        self.num_examples = 0

    def wants(self, output: str) -> bool:
        """Return whether an output is averaged."""
        return self.names is None or output in (*self.names, "weight")

    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Add a batch."""
        valid = batch["valid"].numpy()
        self.num_examples += int(valid.sum())
        for name, values in outputs.items():
            if values.ndim == 1:
                column = values.double().numpy()[valid]
                self.columns.setdefault(name, []).append(column)

    def merge(self, other: Evaluator) -> None:
        """Add the columns of other examples."""
        assert isinstance(other, MeanEvaluator)
        self.num_examples += other.num_examples
        self.errors |= other.errors
        for name, parts in other.columns.items():
            self.columns.setdefault(name, []).extend(parts)

    def compute(self) -> dict[str, Any]:
        """Return the means, and `num_examples`."""
        whole = {name: np.concatenate(parts) for name, parts in self.columns.items()}
        weights = whole.pop("weight", None)
        total = self.num_examples if weights is None else math.fsum(weights)
        means = {
            name: math.fsum(column) / total if total else None for name, column in whole.items()
        }
        figures = {**means, "num_examples": self.num_examples}
        return figures if self.primary.name in figures else {**figures, self.primary.name: None}


def plain_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures as JSON-serialisable data: arrays and tensors become numbers or lists."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic | Tensor) else value
        for name, value in figures.items()
    }


class WithMetrics(Evaluator):
    """An evaluator plus means over examples of additional outputs, such as the caller's."""

    def __init__(self, evaluator: Evaluator, names: tuple[str, ...]) -> None:
        super().__init__()
        self.evaluator, self.additional = evaluator, MeanEvaluator(names=names)
        self.primary = evaluator.primary
        self.names = names

    def wants(self, output: str) -> bool:
        """Return whether either reads an output."""
        return output in self.names or self.evaluator.wants(output)

    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Pass each its outputs."""
        additional = {name: outputs[name] for name in self.names}
        self.additional.update(batch, additional)
        self.evaluator.update(
            batch, {name: value for name, value in outputs.items() if name not in additional}
        )

    def merge(self, other: Evaluator) -> None:
        """Merge both."""
        assert isinstance(other, WithMetrics)
        self.errors |= other.errors
        self.evaluator.merge(other.evaluator)
        self.additional.merge(other.additional)

    def compute(self) -> dict[str, Any]:
        """Return the evaluator's figures, then the additional means."""
        means = self.additional.compute()
        return {**self.evaluator.compute(), **{name: means.get(name) for name in self.names}}


def score(
    function: Apply,
    evaluator: Evaluator,
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    workers: int = -1,
    ranks: Distributed | None = None,
    needs: Needs = CLASSIFICATION,
    report_progress: Callable[[int, int], None] | None = None,
) -> Evaluator:
    """Fill an evaluator with all examples, every one exactly once.

    Args:
        function: from a batch, its images in the model's range, to named outputs (N, ...).
        evaluator: empty.
        examples: of one split.
        preprocessing: of the model.
        batch_size: affects figures only by rounding.
        device: where the model is.
        precision: of the matrix products.
        workers: decoding threads; -1: by the number of cores.
        ranks: the processes that share the work; each example goes to one of them.
        needs: what a batch holds in addition to its images.
        report_progress: called with the number of examples done and the total.

    Returns:
        The evaluator of all examples, in every process.
    """
    ranks = ranks or Distributed()
    done = 0

    def wanted(batch: Batch) -> dict[str, Tensor]:
        return {name: value for name, value in function(batch).items() if evaluator.wants(name)}

    for batch, outputs in forward_examples(
        wanted,
        examples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        device=device,
        precision=precision,
        errors=evaluator.errors,
        workers=workers,
        indices=np.arange(len(examples))[ranks.rank :: ranks.world_size],
        needs=needs,
    ):
        evaluator.update(batch, outputs)
        done += len(batch["valid"])
        ranks.mark_progress()
        if report_progress:
            report_progress(done * ranks.world_size, len(examples))
    first, *others = ranks.all_gather_object(evaluator)
    for other in others:
        first.merge(other)
    whole: Evaluator = first
    return whole
