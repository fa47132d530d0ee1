"""What is measured of a model on a split, batch by batch, on any number of processes."""

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

from vitral.data.loader import evaluation_batches
from vitral.data.needs import CLASSIFICATION, Needs
from vitral.evaluate.forward import Apply, as_model_sees, forward_batches
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
    """What was scored, for whoever writes the files behind a score."""

    model: nn.Module
    """With the weights that were scored, in evaluation mode."""
    data: ImageDataset
    split: str
    preprocessing: Preprocessing
    device: torch.device

    @property
    def examples(self) -> Examples:
        """Of the split."""
        return self.data.splits[self.split]


class Evaluator(ABC):
    """Takes in what a model makes of examples, and says what that is worth.

    It holds no model and lies on the CPU: each process fills its own, and they are merged.
    """

    primary: Metric
    """The figure that a run is judged by: its best model, its headline, its row of results."""

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}
        """Why an example could not be scored, by index."""

    def wants(self, output: str) -> bool:
        """Say whether an output is read: what is not stays on the device."""
        return True

    @abstractmethod
    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take in a batch as it was loaded and the outputs for it, both on the CPU.

        Rows that `valid` says are false count for nothing.
        """

    @abstractmethod
    def merge(self, other: Evaluator) -> None:
        """Take in what an evaluator of other examples has."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """Return the figures by name, `primary` among them, None where nothing was scored.

        With `num_examples`. What lies beside a figure has its name as beginning, such as
        `accuracy_interval`.
        """

    def finish(self, folder: Path, scored: Scored) -> dict[str, Any]:
        """Write the files behind the score into a run's folder; return further figures.

        Called once, on the main process, after everything was merged. The files are of kinds that
        reports know; `figures` draws them.
        """
        return {}


class MeanEvaluator(Evaluator):
    """Means over examples of every output of one number each, such as the loss.

    Where an output is called `weight`, the others are sums over what the example counts for, such
    as its pixels: they are divided by the sum of weights. A mean is exact: it does not depend on
    the order of examples or the number of processes.
    """

    def __init__(self, primary: Metric = LOSS, *, names: tuple[str, ...] | None = None) -> None:
        """Choose what is averaged.

        Args:
            primary: what models are judged by.
            names: of the outputs; None: all of shape (N,).
        """
        super().__init__()
        self.primary = primary
        self.names = names
        self.columns: dict[str, list[np.ndarray]] = {}
        self.num_examples = 0

    def wants(self, output: str) -> bool:
        """Say whether an output is averaged."""
        return self.names is None or output in (*self.names, "weight")

    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Take in a batch."""
        valid = batch["valid"].numpy()
        self.num_examples += int(valid.sum())
        for name, values in outputs.items():
            if values.ndim == 1:
                column = values.double().numpy()[valid]
                self.columns.setdefault(name, []).append(column)

    def merge(self, other: Evaluator) -> None:
        """Take in the columns of other examples."""
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
    """Return figures as plain data that JSON has: arrays and tensors as numbers or lists."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic | Tensor) else value
        for name, value in figures.items()
    }


class WithMetrics(Evaluator):
    """An evaluator, and beside it means over examples of further outputs, such as a caller's."""

    def __init__(self, evaluator: Evaluator, names: tuple[str, ...]) -> None:
        super().__init__()
        self.evaluator, self.further = evaluator, MeanEvaluator(names=names)
        self.primary = evaluator.primary
        self.names = names

    def wants(self, output: str) -> bool:
        """Say whether either reads an output."""
        return output in self.names or self.evaluator.wants(output)

    def update(self, batch: Batch, outputs: Mapping[str, Tensor]) -> None:
        """Give each its outputs."""
        further = {name: outputs[name] for name in self.names}
        self.further.update(batch, further)
        self.evaluator.update(batch, {n: v for n, v in outputs.items() if n not in further})

    def merge(self, other: Evaluator) -> None:
        """Merge both."""
        assert isinstance(other, WithMetrics)
        self.errors |= other.errors
        self.evaluator.merge(other.evaluator)
        self.further.merge(other.further)

    def compute(self) -> dict[str, Any]:
        """Return the evaluator's figures, then the further means."""
        means = self.further.compute()
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
        batch_size: changes no figure beyond rounding.
        device: where the model is.
        precision: of the matrix products; scores are in float32 unless asked otherwise.
        workers: threads that decode; -1: by the number of cores.
        ranks: the processes that share the work; each example goes to one of them.
        needs: what a batch holds beside its images.
        report_progress: called with the number of examples done and of all.

    Returns:
        The evaluator of all examples, in every process.
    """
    ranks = ranks or Distributed()
    done = 0
    batches = evaluation_batches(
        examples,
        preprocessing=preprocessing,
        batch_size=batch_size,
        errors=evaluator.errors,
        workers=workers,
        indices=np.arange(len(examples))[ranks.rank :: ranks.world_size],
        needs=needs,
    )

    def wanted(batch: Batch) -> dict[str, Tensor]:
        return {name: value for name, value in function(batch).items() if evaluator.wants(name)}

    apply = as_model_sees(wanted, device=device, preprocessing=preprocessing, precision=precision)
    for batch, outputs in forward_batches(apply, batches, device=device):
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
