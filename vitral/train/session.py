"""One sitting of a run: steps, and what is logged, scored and saved between them."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vitral.data.images import ImageData
from vitral.data.loader import TrainingBatches
from vitral.data.order import steps_per_epoch
from vitral.data.stages import WAIT_SHARE, advise, describe_advice, measure_stages
from vitral.data.stores.decoded import DecodedStore, bytes_to_keep
from vitral.errors import DataError
from vitral.evaluate.score import mean_over_examples
from vitral.models.model import Model, zero_head
from vitral.runtime.device import machine_facts
from vitral.spec.run import RunConfig
from vitral.spec.vit import ViTConfig
from vitral.train.average import using_average
from vitral.train.best import score_of
from vitral.train.checkpoint import SavedState, save_checkpoint
from vitral.train.fewshot import FewshotScorer
from vitral.train.folder import RunFolder
from vitral.train.loop import Machine, StepResult, TrainState, train_steps
from vitral.train.metrics import MetricFunction, ScoredObjective
from vitral.train.optimizer import load_optimizer_tensors, optimizer_tensors
from vitral.train.progress import ProgressView, describe
from vitral.train.readings import Clock, Sums, own_sums
from vitral.train.signals import InterruptedRunError, StopRequest, listen_for_stop
from vitral.train.unreadable import check_unreadable

MOST_CHECKPOINTS = 100
"""In a run that does not say how often: on few images an epoch is a step or two."""
WARM_STEPS = 20
"""After which waiting for data is more than the beginning's."""


class Session:
    """Trains from the state's step to the end of the run, or until asked to stop."""

    def __init__(
        self,
        config: RunConfig,
        *,
        data: ImageData,
        state: TrainState,
        machine: Machine,
        folder: RunFolder,
        view: ProgressView,
        metrics: Mapping[str, MetricFunction],
        provenance: Mapping[str, Any],
        fewshot: FewshotScorer | None = None,
        zero_head: bool = False,
    ) -> None:
        self._config, self._data, self._state = config, data, state
        self._machine, self._folder, self._view = machine, folder, view
        self._provenance = dict(provenance)
        self._fewshot, self._zero_head = fewshot, zero_head
        self._scored = ScoredObjective(state.objective, metrics)
        self._batches = TrainingBatches(
            data.splits["train"],
            config.preprocessing,
            config.augment,
            seed=config.train.seed,
            batch_size=config.train.batch_size,
            micro_batch_size=config.train.micro_batch_size,
            rank=machine.ranks.rank,
            world_size=machine.ranks.world_size,
            workers=config.data.workers,
            num_paths=_num_paths(config),
            scaled_decoding=config.data.scaled_decoding,
        )
        self._per_epoch = steps_per_epoch(len(data.splits["train"]), config.train.batch_size)
        self._log_every = config.train.log_every_steps or max(1, self._per_epoch // 10)
        most = -(-config.train.steps // MOST_CHECKPOINTS)
        self._save_every = config.checkpoint.every_steps or max(self._per_epoch, most)
        self._sums = Sums()
        self._seconds = 0.0
        self._last_saved = -1
        self._unreadable: dict[str, str] = {}
        self._is_advised = False
        self._first_step = state.step

    def restore(self, saved: SavedState) -> None:
        """Go on from a checkpoint."""
        state, progress = self._state, saved.progress
        self._model().load_state_dict(saved.weights)
        load_optimizer_tensors(state.optimizer, saved.optimizer)
        if state.average and saved.average:
            state.average.load(saved.average)
        if state.best and saved.best:
            state.best.load(saved.best, progress["best"])
        state.step = self._last_saved = self._first_step = progress["step"]
        self._sums = own_sums(
            progress["sums"],
            rank=self._machine.ranks.rank,
            world_size=self._machine.ranks.world_size,
        )
        self._seconds = progress["seconds"]
        self._unreadable = progress["unreadable"]

    def run(self) -> None:
        """Train to the end.

        Raises:
            InterruptedRunError: a signal asked to stop; what is there has been saved.
            DivergedError: a loss or gradient is not finite.
            DataError: too many images turn out to be unreadable.
        """
        steps = self._config.train.steps
        self._view.start("training", total=steps, done=self._state.step)
        try:
            with listen_for_stop() as stop:
                self._train(stop)
        finally:
            self._view.finish()

    def _train(self, stop: StopRequest) -> None:
        steps = self._config.train.steps
        if self._state.best and not self._state.step:
            self._evaluate()  # what training must not make worse
        if not self._state.step and self._zero_head:
            model = self._model()
            assert isinstance(model, Model)
            zero_head(model.head)
        if self._is_exhausted():
            return
        clock, since = time.perf_counter(), Clock()
        for result in train_steps(
            self._state, self._batches, config=self._config, machine=self._machine
        ):
            step = self._state.step
            self._sums.add(result)
            self._seconds += time.perf_counter() - clock
            since.add(result, time.perf_counter() - clock)
            clock = time.perf_counter()
            if step % self._log_every == 0 or step == steps:
                self._log(result, since)
                since = Clock()
            if self._is_evaluation_due(step):
                self._evaluate()
            if step % self._save_every == 0 or step == steps or self._is_exhausted():
                self.save()
            if self._is_exhausted():
                self._say_early()
                return
            if self._stop_asked(stop):
                self._stop(stop)
            self._seconds += time.perf_counter() - clock
            clock = time.perf_counter()

    def _is_exhausted(self) -> bool:
        best = self._state.best
        return best is not None and best.is_exhausted(self._config.evaluation.patience)

    def _say_early(self) -> None:
        best = self._state.best
        assert best is not None
        self._view.say(
            f"stopped early at step {self._state.step:,} of {self._config.train.steps:,}: "
            f"{best.num_worse} scores in a row were not as good; step {best.step:,} is kept"
        )

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        ranks, state = self._machine.ranks, self._state
        if state.step == self._last_saved:
            return
        self._check_unreadable()
        sums = ranks.gather(vars(self._sums))
        ranks.on_first(lambda: self._write_checkpoint(sums))
        self._last_saved = state.step

    def _write_checkpoint(self, sums: list[dict[str, Any]]) -> None:
        state = self._state
        self._folder.sync_rows()
        # A run that is killed after its last checkpoint has no step left that would write this.
        self._folder.write_results_csv()
        save_checkpoint(
            self._folder.checkpoints,
            model=self._model(),
            average=state.average.tensors if state.average else None,
            best=state.best.tensors if state.best else None,
            optimizer=optimizer_tensors(state.optimizer),
            progress={
                "step": state.step,
                "best": state.best.progress() if state.best else None,
                "sums": sums,
                "seconds": self._seconds,
                "unreadable": self._unreadable,
                "world_size": self._machine.ranks.world_size,
                "machine": machine_facts(self._machine.device),
            },
            preprocessing=self._config.preprocessing,
            classes=self._data.classes,
            provenance=self._provenance,
            keep=self._config.checkpoint.keep,
        )
        self._folder.write_status("running", step=state.step, steps=self._config.train.steps)

    def _log(self, result: StepResult, since: Clock) -> None:
        """Write a row of the mean over the steps since the last row, over all processes."""
        names = sorted(self._sums.metrics)
        values = [self._sums.loss, *(self._sums.metrics[name] for name in names)]
        gathered = self._machine.ranks.gather(values)
        sums = [math.fsum(column) for column in zip(*gathered, strict=True)]
        count = max(self._sums.num_examples, 1)
        step = self._state.step
        means = {name: value / count for name, value in zip(["loss", *names], sums, strict=True)}
        row = {
            "step": step,
            "epoch": step / self._per_epoch,
            "split": "train",
            **means,
            "learning_rate": result.learning_rate,
            "grad_norm": result.grad_norm,
        }
        timing = since.reading()
        facts = {
            **timing,
            "epoch": row["epoch"],
            "loss": row["loss"],
            "accuracy": row.get("accuracy"),
        }
        if self._machine.ranks.is_first:
            self._folder.add_metrics(row)
            self._folder.add_timing({"step": step, "seconds": self._seconds, **timing})
        self._view.update(step, self._config.train.steps, title="training", facts=describe(facts))
        if timing["wait_share"] > WAIT_SHARE and self._is_warm() and not self._is_advised:
            self._is_advised = True
            self._advise(timing["wait_share"])
        self._sums = Sums()

    def _is_warm(self) -> bool:
        """Say whether loading has got going, and images that are kept have all been decoded."""
        steps = self._state.step - self._first_step
        is_kept = isinstance(self._batches.examples.store, DecodedStore)
        return steps > WARM_STEPS and (not is_kept or steps > self._per_epoch)

    def _advise(self, wait_share: float) -> None:
        """Say once why the model waits for data, and what to do about it."""
        if not self._machine.ranks.is_first:
            return
        config = self._config
        how = config.preprocessing
        try:
            stages = measure_stages(
                self._batches.examples, preprocessing=how, settings=config.augment
            )
        except (DataError, OSError):
            return  # advice is no reason to stop
        total = self._data.decoded_bytes()
        most = bytes_to_keep(num_processes=self._machine.ranks.world_size)
        fits = total is not None and 0 < total <= most
        advice = advise(stages, data=config.data, preprocessing=how, fits=fits)
        self._view.say(f"the model waits for data {100 * wait_share:.0f} % of the time")
        for sentence in describe_advice(stages, advice):
            self._view.say(f"  {sentence}")

    def _is_evaluation_due(self, step: int) -> bool:
        if "validation" not in self._data.splits and not self._config.evaluation.fewshot:
            return False
        every = self._config.evaluation.every_epochs * self._per_epoch
        is_last = step == self._config.train.steps
        return is_last or (every > 0 and math.floor(step / every) > math.floor((step - 1) / every))

    def _evaluate(self) -> None:
        if "validation" in self._data.splits:
            self._evaluate_validation()
        if self._config.evaluation.fewshot:
            with using_average(self._model(), self._state.average):
                self._machine.ranks.on_first(self._write_fewshot)

    def _write_fewshot(self) -> None:
        """Write rows of few-shot scores, which only the first process has opened."""
        assert self._fewshot is not None
        step = self._state.step
        for split, accuracy in self._fewshot.scores(self._model()).items():
            self._folder.add_metrics(
                {
                    "step": step,
                    "epoch": step / self._per_epoch,
                    "split": split,
                    "accuracy": accuracy,
                }
            )

    def _evaluate_validation(self) -> None:
        """Write rows of scores on the validation images: of averaged and of raw weights."""
        averages = {"validation": self._state.average}
        if self._state.average:
            averages["validation_raw"] = None
        for split, average in averages.items():
            with using_average(self._model(), average):
                means = mean_over_examples(
                    self._scored,
                    self._data.splits["validation"],
                    preprocessing=self._config.preprocessing,
                    batch_size=self._config.evaluation.batch_size,
                    device=self._machine.device,
                    workers=self._config.data.workers,
                    ranks=self._machine.ranks,
                )
                if self._state.best and split == "validation":
                    self._state.best.consider(
                        self._model().state_dict(),
                        score=score_of(means, settings=self._config.evaluation),
                        step=self._state.step,
                    )
            step = self._state.step
            row = {"step": step, "epoch": step / self._per_epoch, "split": split, **means}
            if self._machine.ranks.is_first:
                self._folder.add_metrics(row)

    def _check_unreadable(self) -> None:
        """Write newly found unreadable images, and stop when they are too many."""
        found = {
            self._data.splits["train"].name(index): reason
            for own in self._machine.ranks.gather(dict(self._batches.errors))
            for index, reason in own.items()
        }
        self._unreadable = self._unreadable | found
        if found and self._machine.ranks.is_first:
            self._folder.write_skipped(self._data, self._unreadable)
        check_unreadable(self._data, config=self._config, found_later=len(self._unreadable))

    def _stop_asked(self, stop: StopRequest) -> bool:
        if self._machine.ranks.world_size == 1:
            return bool(stop.signal_number)
        asked = torch.tensor(stop.signal_number, device=self._machine.device)
        return bool(self._machine.ranks.sum(asked))

    def _stop(self, stop: StopRequest) -> None:
        self.save()
        number = max(self._machine.ranks.gather(stop.signal_number))
        raise InterruptedRunError(
            f"stopped at step {self._state.step} of {self._config.train.steps} and saved in "
            f"{self._folder.path}: the same command goes on from there",
            signal_number=number,
        )

    def _model(self) -> nn.Module:
        model = self._state.objective.model
        assert isinstance(model, nn.Module)
        return model


def _num_paths(config: RunConfig) -> int:
    """Return how many branches stochastic depth may skip, 0 without it."""
    model = config.model
    if not isinstance(model, ViTConfig) or not model.drop_path:
        return 0
    return model.depth * model.num_branches
