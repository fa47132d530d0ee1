"""Execution of a run: open, build, parallelise, optimizer, restore, steps, finish.

The code is in this order; logging, scoring and saving between steps come after the steps.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor, nn

from vitral.config.checks import check_choice
from vitral.config.settings import flatten
from vitral.data.dataset import check_unreadable
from vitral.data.device_transforms import prefetch
from vitral.data.loader import TrainingBatches
from vitral.errors import ProcessLostError, RequestError
from vitral.figures.report import write_report
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.models.model import Model, zero_head
from vitral.models.weights.folder import WEIGHTS_NAME, read_config, read_output
from vitral.runtime.device import bytes_to_keep, machine_facts
from vitral.training.building import (
    Run,
    build_network,
    build_objective,
    build_state,
    examples_of,
    needs_of,
    training_warnings,
)
from vitral.training.checkpoint import SavedState, check_space, load_newest, save_checkpoint
from vitral.training.context import InterruptedRunError, StopRequest, listen_for_stop
from vitral.training.loop import StartedStep, StepResult, StepRunner
from vitral.training.meters import TrainLog, restore_sums
from vitral.training.objectives.base import Objective
from vitral.training.optimizer import describe_decay
from vitral.training.parallel import parallelise, uncompiled
from vitral.training.results import Result, describe_run, read_result, write_results
from vitral.training.state import TrainState, gathered
from vitral.training.validation import Validation

if TYPE_CHECKING:
    from vitral.training.fewshot import FewshotScorer

MOST_CHECKPOINTS = 100
"""Limit for runs that do not set the interval: with few images an epoch is a step or two."""
# Per weight: the weight, two moments of AdamW, an average, and the model in the checkpoint.
_STATE_COPIES = 5


def wants_report() -> bool:
    """Return whether a run ends with its report: yes, unless `VITRAL_REPORT=off`.

    Raises:
        RequestError: the variable has another value.
    """
    value = os.environ.get("VITRAL_REPORT", "on")
    check_choice(("on", "off"), VITRAL_REPORT=value)
    return value == "on"


class Trainer:
    """Executes a run."""

    def __init__(self, run: Run) -> None:
        self._run, self._config = run, run.resolved.config
        self._data = run.data
        self._machine, self._view, self._folder = run.machine, run.view, run.folder
        self._ranks = run.machine.ranks
        self._fewshot: FewshotScorer | None = None
        self._wants_report = wants_report()

    def run(self, *, resume: str) -> Result:
        """Start or resume, train, and write the result.

        Raises:
            VitralError: of the kinds defined in `vitral.errors`.
        """
        is_done = self._folder.status().get("state") == "done"
        if self._config.evaluation.fewshot and not is_done:
            self._ranks.run_on_main(self._open_fewshot)
        with self._locked():
            saved = self._open(resume=resume)
            network = build_network(self._run)
            if self._folder.status().get("state") == "done":
                return self._load_finished(network)
            try:
                with self._ranks.guard(
                    timeout_seconds=self._config.train.timeout_seconds, on_loss=self._note_loss
                ):
                    return self._train(network, saved)
            except BaseException as error:
                if self._ranks.is_main:
                    self._note_failure(error)
                raise

    def _train(self, network: nn.Module, saved: SavedState | None) -> Result:
        # Open
        for data in (self._data, *self._run.extra.values()):
            check_unreadable(data, config=self._config)
        self._keep_decoded()
        # Build
        objective = build_objective(self._run, network)
        # Parallelise
        forward = parallelise(objective, self._machine)
        # Optimizer
        state = build_state(self._run, objective)
        self._check_state(state)
        # Restore
        self._prepare_steps(state)
        if saved:
            self._restore(saved)
        if self._ranks.is_main:
            self._folder.truncate(state.step if saved else -1)
            self._write_running()
        # Steps
        runner = StepRunner(
            state, forward, self._batches, config=self._config, machine=self._machine
        )
        self._run_steps(runner)
        # Finish
        return self._finish()

    # Open

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Create the run folder, and lock it against other processes."""
        try:
            self._folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"{self._folder.path} can't be made ({error.strerror}): choose another --output"
            ) from None
        locks: list[IO[str]] = []
        try:
            self._ranks.run_on_main(lambda: locks.append(self._folder.lock()))
            yield
        finally:
            for lock in locks:
                lock.close()

    def _open(self, *, resume: str) -> SavedState | None:
        """Start a run in the folder, or load the checkpoint of the run in it."""
        run, folder, saved = self._run, self._folder, None
        holds_run = self._ranks.broadcast_object(folder.holds_run())
        if holds_run:
            if resume == "never":
                raise RequestError(
                    f"{folder.path} holds a run and resume=never: choose another --output"
                )
            folder.check_same(
                settings=flatten(self._config), fingerprint=run.fingerprint, parts=run.parts
            )
            if self._ranks.is_main:
                atomic.remove_leftovers(folder.path)
                atomic.remove_leftovers(folder.checkpoints)
            with self._ranks.patient():
                saved, complaints = load_newest(folder.checkpoints)
            for complaint in complaints:
                self._view.log(complaint)
        self._ranks.run_on_main(lambda: self._write_beginning(saved, is_new=not holds_run))
        return saved

    def _open_fewshot(self) -> None:
        from vitral.training.fewshot import open_fewshot  # many imports, needed by few runs

        self._fewshot = open_fewshot(self._config, device=self._machine.device, log=self._view.log)

    def _write_beginning(self, saved: SavedState | None, *, is_new: bool) -> None:
        run, folder = self._run, self._folder
        if is_new:
            recipe = run.resolved.recipe
            folder.begin(
                settings=flatten(self._config),
                origin=run.resolved.origin,
                command=run.command,
                fingerprint=run.fingerprint,
                parts=run.parts,
                recipe={"name": recipe.name, "reason": recipe.reason},
            )
        if folder.status().get("state") != "done":
            self._view.log_to(folder.path / RunFile.LOG)
            describe_run(
                folder,
                run.resolved,
                self._data,
                self._machine,
                extra=run.extra,
                title=run.title,
                saved=saved,
                log=self._view.log,
            )

    def _load_finished(self, network: nn.Module) -> Result:
        """Return the result of a run that had already finished."""
        folder = self._folder
        objective = self._run.objective.build(network, self._config.objective)
        result = objective.to(self._machine.device).result()
        result.load_state_dict(load_file(folder.model / WEIGHTS_NAME))
        if isinstance(result, Model):
            result.output = read_output(read_config(folder.model), path=folder.model)
        self._view.log(f"{folder.path} holds this run, finished")
        has_report = (folder.path / RunFile.REPORT).exists()
        if self._ranks.is_main and self._wants_report and not has_report:
            write_report(folder.path)
        return Result(result.eval(), read_result(folder), folder.path)

    def _keep_decoded(self) -> None:
        """Cache decoded images in memory if they fit."""
        settings, total = self._config.data, self._data.decoded_bytes()
        if settings.keep_decoded == "off" or settings.scaled_decoding or total == 0:
            return
        most = bytes_to_keep(num_processes=self._ranks.world_size)
        if settings.keep_decoded == "on" or (total is not None and total <= most):
            self._data = self._data.keeping_decoded()
            size = "" if total is None else f" ({total / 1e6:,.0f} MB)"
            self._view.log(f"data: decoded images are kept in memory{size}")

    # Optimizer, restore

    def _check_state(self, state: TrainState) -> None:
        """Log what decays, and check that checkpoints will fit."""
        objective = state.objective
        for sentence in describe_decay(objective, state.optimizer) + training_warnings(
            self._run, objective
        ):
            self._view.log(sentence)
        num_bytes = sum(tensor.nbytes for tensor in objective.state_dict().values())
        copies = _STATE_COPIES + self._config.evaluation.keep_best
        check_space(self._folder.path, num_bytes=copies * num_bytes)

    def _prepare_steps(self, state: TrainState) -> None:
        """Set up the batches, and logging, scoring and saving between steps."""
        config, needs = self._config, needs_of(state.objective)
        self._state = state
        self._batches = TrainingBatches(
            self._data.splits["train"],
            config.preprocessing,
            config.augment,
            seed=config.train.seed,
            batch_size=config.train.batch_size,
            micro_batch_size=config.train.micro_batch_size,
            rank=self._ranks.rank,
            world_size=self._ranks.world_size,
            workers=config.data.workers,
            needs=needs,
            extra={name: examples_of(data) for name, data in self._run.extra.items()},
            scaled_decoding=config.data.scaled_decoding,
        )
        self._log = TrainLog(self._run, self._batches)
        self._validation = Validation(self._run, self._data, self._fewshot)
        per_epoch = self._batches.steps_per_epoch
        self._log_every = config.train.log_every_steps or max(1, per_epoch // 10)
        most = -(-config.train.steps // MOST_CHECKPOINTS)
        self._save_every = config.checkpoint.every_steps or max(per_epoch, most)
        self._last_saved = -1
        self._unreadable: dict[str, str] = {}

    def _restore(self, saved: SavedState) -> None:
        """Resume from a checkpoint."""
        progress, log = saved.progress, self._log
        self._state.load(saved.tensors, progress)
        self._last_saved = log.first_step = self._state.step
        log.sums = restore_sums(
            progress["sums"], rank=self._ranks.rank, world_size=self._ranks.world_size
        )
        log.seconds = progress["seconds"]
        self._unreadable = progress["unreadable"]

    def _write_running(self) -> None:
        steps = self._config.train.steps
        self._folder.write_status("running", step=self._state.step, steps=steps)

    # Steps

    def _run_steps(self, runner: StepRunner) -> None:
        """Train to the end.

        Raises:
            InterruptedRunError: a signal requested a stop; the state has been saved.
            DivergedError: a loss or gradient is not finite.
            DataError: too many images turn out to be unreadable.
        """
        self._view.start("training", total=self._config.train.steps, done=self._state.step)
        try:
            with listen_for_stop() as stop:
                self._before_first_step()
                if not self._is_exhausted():
                    self._run_loop(runner, stop)
        finally:
            self._view.finish()

    def _before_first_step(self) -> None:
        if self._state.step:
            return
        if self._state.best:
            self._evaluate()  # baseline that training must not fall below
        if self._run.zero_head:
            model = self._state.objective.model
            assert isinstance(model, Model)
            zero_head(model.head)

    def _run_loop(self, runner: StepRunner, stop: StopRequest) -> None:
        """Start each step, and read the measurements of the previous one meanwhile."""
        state, log = self._state, self._log
        state.objective.train()
        pending: StartedStep | None = None
        steps = prefetch(
            self._batches.steps(state.step, self._config.train.steps), device=self._machine.device
        )
        clock = time.perf_counter()
        with contextlib.closing(steps):
            for step_batches in steps:
                wait = time.perf_counter() - clock
                started = runner.start(step_batches, wait_seconds=wait, stop=stop.signal_number)
                signal_number = self._read(runner, pending).stop if pending else 0
                pending = started
                # A single process stops at once; several agree through the measurements.
                signal_number |= stop.signal_number if self._ranks.world_size == 1 else 0
                result = None
                if signal_number or self._is_due(state.step):
                    result, pending = self._read(runner, pending), None
                log.take_seconds(time.perf_counter() - clock)
                clock = time.perf_counter()
                if result:
                    self._between_steps(result, signal_number=signal_number | result.stop)
                    log.take_seconds(time.perf_counter() - clock, of_steps=False)
                    clock = time.perf_counter()
                if self._is_exhausted():
                    return

    def _read(self, runner: StepRunner, started: StartedStep) -> StepResult:
        result = runner.read(started)
        self._log.take(result)
        return result

    def _is_due(self, step: int) -> bool:
        """Return whether to log, score or save after a step."""
        is_last = step == self._config.train.steps
        is_logged, is_saved = step % self._log_every == 0, step % self._save_every == 0
        return is_last or is_logged or is_saved or self._is_scored(step)

    def _is_scored(self, step: int) -> bool:
        return self._validation.is_due(step, per_epoch=self._batches.steps_per_epoch)

    # Between steps

    def _between_steps(self, result: StepResult, *, signal_number: int) -> None:
        """Log, score and save if due, and stop if requested."""
        step, last = self._state.step, self._config.train.steps
        if step % self._log_every == 0 or step == last:
            self._log.write(step, result)
        if self._is_scored(step):
            self._evaluate()
        if self._is_exhausted():
            self._save()
            self._log_early_stop()
            return
        if step % self._save_every == 0 or step == last:
            self._save()
        if signal_number:
            self._stop(signal_number)

    def _evaluate(self) -> None:
        """Write rows of scores."""
        for row in self._validation.rows(self._state):
            if self._ranks.is_main:
                columns = self._log.place(self._state.step, row["split"])
                self._folder.add_metrics({**columns, **row})

    def _is_exhausted(self) -> bool:
        best = self._state.best
        return best is not None and best.is_exhausted(self._config.evaluation.patience)

    def _log_early_stop(self) -> None:
        best = self._state.best
        assert best is not None
        self._view.log(
            f"stopped early at step {self._state.step:,} of {self._config.train.steps:,}: "
            f"{best.num_worse} scores in a row were not as good; step {best.step:,} is kept"
        )

    def _stop(self, signal_number: int) -> None:
        self._save()
        raise InterruptedRunError(
            f"stopped at step {self._state.step} of {self._config.train.steps} and saved in "
            f"{self._folder.path}: the same command goes on from there",
            signal_number=signal_number,
        )

    def _save(self) -> None:
        """Write a checkpoint of the current step; all processes take part."""
        if self._state.step == self._last_saved:
            return
        self._check_unreadable()
        sums = self._ranks.all_gather_object(vars(self._log.sums))
        tensors = gathered(self._state.tensors())
        self._ranks.run_on_main(lambda: self._write_checkpoint(tensors, sums))
        self._last_saved = self._state.step

    def _write_checkpoint(self, tensors: Mapping[str, Tensor], sums: list[dict[str, Any]]) -> None:
        self._folder.sync_rows()
        # A run that is killed after its last checkpoint would never write this otherwise.
        self._folder.write_results_csv()
        save_checkpoint(
            self._folder.checkpoints,
            objective=self._state.objective,
            tensors=tensors,
            progress={
                **self._state.progress(),
                "sums": sums,
                "seconds": self._log.seconds,
                "unreadable": self._unreadable,
                "world_size": self._ranks.world_size,
                "machine": machine_facts(self._machine.device),
            },
            preprocessing=self._config.preprocessing,
            classes=self._run.classes,
            provenance=dict(self._run.provenance),
            keep=self._config.checkpoint.keep,
        )
        self._write_running()

    def _check_unreadable(self) -> None:
        """Write newly found unreadable images, and raise if there are too many."""
        batches = self._batches
        local = {batches.examples.name(index): why for index, why in dict(batches.errors).items()}
        for source, errors in batches.extra_errors.items():
            name = batches.extra[source].name
            local |= {f"{source}: {name(index)}": why for index, why in dict(errors).items()}
        found = {
            name: why
            for errors in self._ranks.all_gather_object(local)
            for name, why in errors.items()
        }
        self._unreadable = self._unreadable | found
        if found and self._ranks.is_main:
            self._folder.write_skipped(self._data, self._unreadable, extra=self._run.extra)
        check_unreadable(self._data, config=self._config, found_later=len(self._unreadable))

    # Finish

    def _finish(self) -> Result:
        """Load the best or averaged weights, score them, and write the result."""
        state, objective = self._state, self._state.objective
        if state.best:
            # Older versions saved only the tensors of the model.
            objective.load_state_dict(state.best.tensors, strict=False)
        elif state.average:
            objective.load_state_dict(state.average.tensors, strict=False)
        objective.eval()
        with uncompiled(objective):
            return self._write_results(objective)

    def _write_results(self, objective: Objective) -> Result:
        state = self._state
        split = next((s for s in ("test", "validation") if s in self._data.splits), None)
        evaluator = objective.evaluator(self._data, final=True)
        if split:
            evaluator = self._validation.score(state, split, final=True)
        summary: dict[str, Any] = {}

        def write() -> None:
            found = write_results(
                self._run, state, evaluator, split=split, data=self._data, fewshot=self._fewshot
            )
            summary.update(found)
            if self._wants_report:
                write_report(self._folder.path)

        self._ranks.run_on_main(write)
        return Result(objective.result(), self._ranks.broadcast_object(summary), self._folder.path)

    def _note_loss(self, reason: str) -> str:
        """Record that a process is lost; return how to resume."""
        self._view.finish()
        self._note_failure(ProcessLostError(reason))
        step = self._folder.status().get("step", 0)
        if not step:
            return "the run stopped before its first checkpoint: the same command begins it again"
        return f"the run stopped: the same command goes on from its checkpoint of step {step}"

    def _note_failure(self, error: BaseException) -> None:
        interrupted = isinstance(error, InterruptedRunError | KeyboardInterrupt)
        self._folder.write_status(
            "interrupted" if interrupted else "failed",
            step=self._folder.status().get("step", 0),
            steps=self._config.train.steps,
            reason=str(error) or type(error).__name__,
        )
