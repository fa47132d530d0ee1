"""Scores while a model trains and at its end: on validation images, and after few images."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitral.data.images import ImageData
from vitral.data.loading import Batch
from vitral.errors import DataError, RequestError
from vitral.evaluate.evaluator import Evaluator, WithMetrics, plain_figures, score
from vitral.evaluate.outputs import evaluating
from vitral.train.average import using_average
from vitral.train.best import score_of
from vitral.train.building import Run
from vitral.train.fewshot import FewshotScorer
from vitral.train.loop import uncompiled
from vitral.train.metrics import named_values
from vitral.train.state import TrainState


class Validation:
    """Scores the present weights, and keeps the best where the run says so."""

    def __init__(self, run: Run, data: ImageData, fewshot: FewshotScorer | None) -> None:
        """Take what a run scores on.

        Args:
            run: what is fixed of it.
            data: of the run, as it is read.
            fewshot: of the first process, where few-shot scores are asked for.
        """
        self._run, self._data, self._fewshot = run, data, fewshot
        self._settings = run.resolved.config.evaluation

    def is_due(self, step: int, *, per_epoch: int) -> bool:
        """Say whether the model is scored after so many steps."""
        if "validation" not in self._data.splits and not self._settings.fewshot:
            return False
        every = self._settings.every_epochs * per_epoch
        is_last = step == self._run.resolved.config.train.steps
        return is_last or (every > 0 and math.floor(step / every) > math.floor((step - 1) / every))

    def rows(self, state: TrainState) -> list[dict[str, Any]]:
        """Return a row for each split: `split` and figures; of averaged weights and of raw ones.

        Few-shot scores are on the first process alone, which has opened their tasks.

        Raises:
            DataError: no validation image can be read.
            DivergedError: a score is not a number.
        """
        found = []
        if "validation" in self._data.splits:
            found += self._on_validation(state)
        if self._settings.fewshot:
            with using_average(state.objective, state.average):
                self._run.machine.ranks.on_first(lambda: found.extend(self._after_few(state)))
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
        """Measure the present weights on a split, in float32, on all processes."""
        run, objective, config = self._run, state.objective, self._run.resolved.config
        metrics = {} if final else run.metrics
        evaluator = objective.evaluator(self._data, final=final)

        def function(batch: Batch) -> dict[str, Tensor]:
            found = objective.outputs(batch, final=final)
            further = named_values(metrics, objective.result(), batch)
            if clash := sorted(found.keys() & further.keys()):
                raise RequestError(
                    f"a metric called {clash[0]!r}, which the objective measures itself: call it "
                    "otherwise"
                )
            return found | further

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
        """Refuse an evaluator whose figures lack the one that it says models are judged by."""
        figures = scored.compute()
        if figures["num_examples"] and scored.primary.name not in figures:
            raise RequestError(
                f"the objective is judged by {scored.primary.name!r}, which it does not measure: "
                f"it gives {', '.join(n for n in figures if n != scored.primary.name)}"
            )


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that belong into a row of metrics."""
    return {
        name: value
        for name, value in plain_figures(figures).items()
        if isinstance(value, int | float) and name != "num_examples"
    }
