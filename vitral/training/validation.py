"""Scores during and after training, by the metrics of the objective and of the caller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitral.data.dataset import ImageDataset
from vitral.data.workers import Batch
from vitral.errors import DataError, RequestError, nearest
from vitral.evaluate.evaluator import Evaluator, WithMetrics, plain_figures, score
from vitral.evaluate.forward import evaluating
from vitral.training.best import score_of
from vitral.training.objectives.base import check_metric_name, per_example
from vitral.training.parallel import uncompiled
from vitral.training.state import using_average

if TYPE_CHECKING:
    from vitral.data.dataset import ImageDataset
    from vitral.data.workers import Batch
    from vitral.training.building import Run
    from vitral.training.fewshot import FewshotScorer
    from vitral.training.state import TrainState


class Validation:
    """Scores the current weights, and keeps the best if the run is set to."""

    def __init__(self, run: Run, data: ImageDataset, fewshot: FewshotScorer | None) -> None:
        """Store the data to score on.

        Args:
            run: its fixed part.
            data: of the run, perhaps decoded in memory.
            fewshot: on the first process, if few-shot scores are requested.
        """
        self._run, self._data, self._fewshot = run, data, fewshot
        self._settings = run.resolved.config.evaluation

    def is_due(self, step: int, *, per_epoch: int) -> bool:
        """Return whether to score the model after a step."""
        if "validation" not in self._data.splits and not self._settings.fewshot:
            return False
        every = self._settings.every_epochs * per_epoch
        is_last = step == self._run.resolved.config.train.steps
        return is_last or (every > 0 and math.floor(step / every) > math.floor((step - 1) / every))

    def rows(self, state: TrainState) -> list[dict[str, Any]]:
        """Return a row of `split` and metrics for each split, of averaged weights and of raw ones.

        Few-shot scores are computed only on the first process, which has opened their tasks.

        Raises:
            DataError: no validation image can be read.
            DivergedError: a score is NaN.
        """
        found = []
        if "validation" in self._data.splits:
            found += self._on_validation(state)
        if self._settings.fewshot:
            with using_average(state.objective, state.average):
                self._run.machine.ranks.run_on_main(lambda: found.extend(self._after_few(state)))
        return found

    def _on_validation(self, state: TrainState) -> list[dict[str, Any]]:
        averages = {"validation": state.average}
        if state.average:
            averages["validation_raw"] = None
        rows = []
        for split, average in averages.items():
            with using_average(state.objective, average):
                scored = self.score(state, "validation", final=False)
                figures = plain_figures(scored.compute())
                if not figures["num_examples"]:
                    raise DataError(
                        "no image of the validation split could be read: check the files"
                    )
                if state.best and split == "validation":
                    state.best.consider(
                        state.objective.state_dict(),
                        score=score_of(figures, primary=scored.primary, settings=self._settings),
                        step=state.step,
                    )
            rows.append({"split": split, **_numbers(figures)})
        return rows

    def _after_few(self, state: TrainState) -> list[dict[str, Any]]:
        assert self._fewshot is not None
        found = self._fewshot.scores(state.objective.result())
        return [{"split": split, "accuracy": accuracy} for split, accuracy in found.items()]

    def score(self, state: TrainState, split: str, *, final: bool) -> Evaluator:
        """Score the current weights on a split, in float32, on all processes."""
        run, objective, config = self._run, state.objective, self._run.resolved.config
        metrics = {} if final else run.metrics
        evaluator = objective.evaluator(self._data, final=final)

        def function(batch: Batch) -> dict[str, Tensor]:
            values = objective.outputs(batch, final=final)
            extra = named_values(metrics, objective.result(), batch)
            if clash := sorted(values.keys() & extra.keys()):
                raise RequestError(
                    f"a metric called {clash[0]!r}, which the objective measures itself: call it "
                    "otherwise"
                )
            return values | extra

        with evaluating(objective), uncompiled(objective):
            scored = score(
                function,
                WithMetrics(evaluator, tuple(metrics)) if metrics else evaluator,
                self._data.splits[split],
                preprocessing=config.preprocessing,
                batch_size=config.evaluation.batch_size,
                device=run.machine.device,
                precision=torch.float32,
                workers=config.data.workers,
                ranks=run.machine.ranks,
                needs=objective.needs,
            )
        if not final:
            self._check_primary(scored)
        return scored

    def _check_primary(self, scored: Evaluator) -> None:
        """Refuse an evaluator that does not compute its own primary metric."""
        figures = scored.compute()
        if figures["num_examples"] and scored.primary.name not in figures:
            raise RequestError(
                f"the objective is judged by {scored.primary.name!r}, which it does not measure: "
                f"it gives {', '.join(n for n in figures if n != scored.primary.name)}"
            )


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalar metrics for a row."""
    return {
        name: value
        for name, value in plain_figures(figures).items()
        if isinstance(value, int | float) and name != "num_examples"
    }


MetricFunction = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) -> (N,), one value per example, or a scalar mean."""


def top5(model: nn.Module, batch: Batch) -> Tensor:
    """Return for each example whether its label is among the five largest logits: (N,) float.

    Raises:
        RequestError: images may have several classes.
    """
    if batch["label"].ndim == 2:
        raise RequestError("the metric top5 is for images of one class each: leave it out")
    logits = model(batch["image"])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return (best == batch["label"].unsqueeze(1)).any(dim=1).float()


METRICS: dict[str, MetricFunction] = {"top5": top5}


def named_metrics(
    metrics: Mapping[str, MetricFunction] | Sequence[str | MetricFunction],
) -> dict[str, MetricFunction]:
    """Return functions by name, from a mapping or from names and functions.

    Raises:
        RequestError: an unknown name, or one that is reserved in rows of metrics.
    """
    found = dict(metrics) if isinstance(metrics, Mapping) else _by_name(metrics)
    for name in found:
        check_metric_name(name, of="your own metrics")
    return found


def _by_name(metrics: Sequence[str | MetricFunction]) -> dict[str, MetricFunction]:
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    found: dict[str, MetricFunction] = {}
    for metric in metrics:
        if not isinstance(metric, str):
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
        elif metric in METRICS:
            found[metric] = METRICS[metric]
        else:
            raise RequestError(f"there is no metric {metric!r}{nearest(metric, METRICS)}")
    return found


def named_values(
    metrics: Mapping[str, MetricFunction], model: nn.Module, batch: Batch
) -> dict[str, Tensor]:
    """Return the values of metric functions on a batch by name, (N,) each."""
    count = len(batch["valid"])
    return {name: per_example(function(model, batch), count) for name, function in metrics.items()}
