"""A resolved run carried out: begun or gone on with in its folder, trained, and finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import nn

from vitral.data.file_splits import describe_splits
from vitral.data.images import ImageData
from vitral.data.stores.decoded import bytes_to_keep
from vitral.errors import ProcessLostError, RequestError
from vitral.figures.report import write_report
from vitral.files import atomic
from vitral.models.build import build_model
from vitral.models.model import Model
from vitral.models.weights.folder import WEIGHTS_NAME
from vitral.runtime.device import choose_compile, choose_precision
from vitral.spec.run import TrainSettings
from vitral.spec.settings import flatten, identity
from vitral.train.average import WeightAverage, decay_of
from vitral.train.beginning import describe_run
from vitral.train.best import BestModel
from vitral.train.checkpoint import SavedState, check_space, checkpoint_paths, load_newest
from vitral.train.fewshot import FewshotScorer, open_fewshot
from vitral.train.folder import RunFolder
from vitral.train.identity import parts_fingerprint
from vitral.train.loop import Machine, TrainState
from vitral.train.metrics import MetricFunction
from vitral.train.objectives.classification import Classification
from vitral.train.objectives.function import FunctionObjective, ObjectiveFunction
from vitral.train.optimizer import build_optimizer
from vitral.train.resolve import ResolvedRun
from vitral.train.result import Ending, Result, read_result
from vitral.train.session import Session
from vitral.train.signals import InterruptedRunError
from vitral.train.site import Site
from vitral.train.unreadable import check_unreadable

# AdamW keeps two moments beside each weight; an average is one more, the checkpoint's model
# another.
_STATE_COPIES = 5


class Execution:
    """Carries out a resolved run: folder, session, result."""

    def __init__(
        self,
        resolved: ResolvedRun,
        data: ImageData,
        *,
        model: str | nn.Module | None,
        title: str,
        objective: str | ObjectiveFunction,
        metrics: Mapping[str, MetricFunction],
        site: Site,
        command: str,
        start: str = "",
        zero_head: bool = False,
    ) -> None:
        """Prepare a run.

        Args:
            resolved: its settings.
            data: opened.
            model: a name, or the module that training begins with.
            title: a short name of the data.
            objective: a name, or a function of the caller's own.
            metrics: measured beside the objective's own.
            site: where it happens.
            command: how a person would say it.
            start: tells the starting weights apart; empty: those of a given module do.
            zero_head: whether the head is set to zero before the first step.
        """
        config = resolved.config
        self.resolved, self.config, self.data, self.title = resolved, config, data, title
        self.objective, self.metrics, self.view, self.command = (
            objective,
            metrics,
            site.view,
            command,
        )
        width = config.model.feature_dim if config.model else 0
        self.machine = Machine(
            device=site.device,
            precision=choose_precision(config.train.precision, device=site.device, width=width),
            compile=choose_compile(
                config.train.compile, device=site.device, steps=config.train.steps
            ),
            ranks=site.ranks,
        )
        self.zero_head = zero_head
        self.fewshot: FewshotScorer | None = None
        self.fingerprint = data.fingerprint()
        self.parts = start + parts_fingerprint(None if start else model, objective, metrics)
        self.provenance: dict[str, Any] = {
            "data": {
                "source": data.source,
                "name": title,
                "fingerprint": self.fingerprint,
                "split": describe_splits(data.listing, config.data),
            },
            "command": command,
        }
        if isinstance(model, Model):  # what belongs to the weights travels with them
            kept = ("licence", "pretrained")
            self.provenance |= {name: model.provenance.get(name) for name in kept}

    def go(
        self, model: str | nn.Module | None, *, output: str | Path | None, resume: str
    ) -> Result:
        """Begin or go on, train, and write the result."""
        folder = RunFolder(self._output_path(model, output, resume))
        if self.config.evaluation.fewshot and folder.status().get("state") != "done":
            self.machine.ranks.on_first(self._open_fewshot)
        first = self.machine.ranks.is_first
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"{folder.path} can't be made ({error.strerror}): choose another --output"
            ) from None
        locks: list[IO[str] | None] = []
        try:
            self.machine.ranks.on_first(lambda: locks.append(folder.lock()))
            saved = self._enter(folder, resume=resume)
            network = self._build_model(model)
            if folder.status().get("state") == "done":
                network.load_state_dict(load_file(folder.model / WEIGHTS_NAME))
                self.view.say(f"{folder.path} holds this run, finished")
                if first and not (folder.path / "report.html").exists():
                    write_report(folder.path)
                return Result(network.eval(), read_result(folder), folder.path)
            try:
                with self.machine.ranks.guard(
                    timeout_seconds=self.config.train.timeout_seconds,
                    on_loss=lambda reason: self._note_loss(folder, reason),
                ):
                    summary = self._finish(network, folder, saved)
            except BaseException as error:
                if first:
                    self._note_failure(folder, error)
                raise
        finally:
            for lock in locks:
                if lock:
                    lock.close()
        return Result(network, summary, folder.path)

    def _open_fewshot(self) -> None:
        self.fewshot = open_fewshot(self.config, device=self.machine.device, say=self.view.say)

    def _finish(
        self, network: nn.Module, folder: RunFolder, saved: SavedState | None
    ) -> dict[str, Any]:
        """Train to the end and write the result."""
        state = self._train(network, folder, saved)
        if state.best:
            network.load_state_dict(state.best.tensors)
        elif state.average:
            network.load_state_dict(state.average.tensors)
        ending = Ending(
            network,
            self.resolved,
            self.data,
            self.title,
            folder,
            self.machine,
            self.provenance,
            steps_done=state.step,
            best=state.best,
            fewshot=self.fewshot,
        )
        return ending.write()

    def _output_path(
        self, model: str | nn.Module | None, output: str | Path | None, resume: str
    ) -> Path:
        if resume not in ("auto", "never"):
            path = _run_folder_of(Path(resume))
            if output is not None and Path(output).resolve() != path.resolve():
                raise RequestError(
                    f"resume={resume!r} goes on in {path}, output={str(output)!r} says otherwise: "
                    "give one of them"
                )
            return path
        if output is not None:
            return Path(output)
        name = self.config.model.name if self.config.model else type(model).__name__
        plain = name.lower().replace("/", "")
        digits = identity(flatten(self.config), given=self.fingerprint + self.parts)
        return Path("runs") / f"{self.title}-{plain}-{digits}"

    def _enter(self, folder: RunFolder, *, resume: str) -> SavedState | None:
        """Begin a run in the folder, or find where the one in it stopped."""
        settings, fingerprint = flatten(self.config), self.fingerprint
        ranks = self.machine.ranks
        saved = None
        holds_run = ranks.from_first(folder.holds_run())
        if holds_run:
            if resume == "never":
                raise RequestError(
                    f"{folder.path} holds a run and resume=never: choose another --output"
                )
            folder.check_same(settings=settings, fingerprint=fingerprint, parts=self.parts)
            if ranks.is_first:
                atomic.remove_leftovers(folder.path)
                atomic.remove_leftovers(folder.checkpoints)
            with ranks.patient():
                saved, complaints = load_newest(folder.checkpoints)
            for complaint in complaints:
                self.view.say(complaint)
        ranks.on_first(lambda: self._write_beginning(folder, saved, is_new=not holds_run))
        return saved

    def _write_beginning(
        self, folder: RunFolder, saved: SavedState | None, *, is_new: bool
    ) -> None:
        if is_new:
            recipe = self.resolved.recipe
            folder.begin(
                settings=flatten(self.config),
                origin=self.resolved.origin,
                command=self.command,
                fingerprint=self.fingerprint,
                parts=self.parts,
                recipe={"name": recipe.name, "reason": recipe.reason},
            )
        if folder.status().get("state") != "done":
            self.view.log_to(folder.path / "log.txt")
            describe_run(
                folder,
                self.resolved,
                self.data,
                self.machine,
                title=self.title,
                saved=saved,
                say=self.view.say,
            )

    def _build_model(self, model: str | nn.Module | None) -> nn.Module:
        config = self.config
        torch.manual_seed(config.train.seed)
        if isinstance(model, nn.Module):
            model = model.to(self.machine.device)
            self._check_outputs(model)
            if isinstance(model, Model):
                model.classes = self.data.classes
                if isinstance(self.objective, str):
                    model.output = self.objective
            return model
        assert config.model is not None
        network = build_model(
            config.model,
            preprocessing=config.preprocessing,
            classes=self.data.classes,
            # Of a function, what its logits mean is not known.
            output=self.objective if isinstance(self.objective, str) else "softmax",
        )
        return network.to(self.machine.device)

    @torch.no_grad()
    def _check_outputs(self, model: nn.Module) -> None:
        """Make sure that a module of the caller's own gives logits of the data's classes."""
        ready, count = self.config.preprocessing, len(self.data.classes)
        images = torch.zeros(2, ready.channels, *ready.size, device=self.machine.device)
        was_training = model.training
        try:
            shape = tuple(model.eval()(images).shape)
        except RuntimeError as error:
            raise RequestError(
                f"your own model does not take images of {tuple(images.shape)}: {error}"
            ) from None
        model.train(was_training)
        if shape != (2, count):
            raise RequestError(
                f"your own model gives outputs of shape {shape} for 2 images of {count} classes: "
                f"it must give (2, {count})"
            )

    def _build_objective(self, network: nn.Module) -> nn.Module:
        if isinstance(self.objective, str):
            return Classification(
                network,
                loss=self.objective,
                label_smoothing=self.config.objective.label_smoothing,
            )
        return FunctionObjective(network, self.objective)

    def _train(self, network: nn.Module, folder: RunFolder, saved: SavedState | None) -> TrainState:
        config = self.config
        check_unreadable(self.data, config=config)
        self._keep_decoded()
        tensors = dict(network.state_dict())
        check_space(folder.path, tensors=[tensors] * (_STATE_COPIES + config.evaluation.keep_best))
        average = _build_average(network, config.train)
        optimizer = build_optimizer(network, config.optimizer, device=self.machine.device)
        if isinstance(network, Model):
            network.gradient_checkpointing = config.train.gradient_checkpointing
        best = None
        if config.evaluation.keep_best:
            best = BestModel(
                network,
                within=config.evaluation.best_within,
                num_images=len(self.data.splits["validation"]),
            )
        state = TrainState(self._build_objective(network), optimizer, average, best)
        session = Session(
            config,
            data=self.data,
            state=state,
            machine=self.machine,
            folder=folder,
            view=self.view,
            metrics=self.metrics,
            provenance=self.provenance,
            fewshot=self.fewshot,
            zero_head=self.zero_head,
        )
        if saved:
            session.restore(saved)
        if self.machine.ranks.is_first:
            folder.cut_back(state.step if saved else -1)
            folder.write_status("running", step=state.step, steps=config.train.steps)
        session.run()
        return state

    def _keep_decoded(self) -> None:
        """Have decoded images kept in memory where they fit."""
        settings, total = self.config.data, self.data.decoded_bytes()
        if settings.keep_decoded == "off" or settings.scaled_decoding or total == 0:
            return
        most = bytes_to_keep(num_processes=self.machine.ranks.world_size)
        if settings.keep_decoded == "on" or (total is not None and total <= most):
            self.data = self.data.keeping_decoded()
            size = "" if total is None else f" ({total / 1e6:,.0f} MB)"
            self.view.say(f"data: decoded images are kept in memory{size}")

    def _note_loss(self, folder: RunFolder, reason: str) -> str:
        """Write down that a process is lost; return how to go on."""
        self.view.finish()
        self._note_failure(folder, ProcessLostError(reason))
        step = folder.status().get("step", 0)
        if not step:
            return "the run stopped before its first checkpoint: the same command begins it again"
        return f"the run stopped: the same command goes on from its checkpoint of step {step}"

    def _note_failure(self, folder: RunFolder, error: BaseException) -> None:
        interrupted = isinstance(error, InterruptedRunError | KeyboardInterrupt)
        step = folder.status().get("step", 0)
        folder.write_status(
            "interrupted" if interrupted else "failed",
            step=step,
            steps=self.config.train.steps,
            reason=str(error) or type(error).__name__,
        )


def _build_average(network: nn.Module, settings: TrainSettings) -> WeightAverage | None:
    decay = settings.ema_decay
    if settings.ema:
        decay = decay_of(settings.ema, total_steps=settings.steps)
    return WeightAverage(network, decay=decay) if decay else None


def _run_folder_of(path: Path) -> Path:
    """Return the run folder that a path is, or whose newest checkpoint it is.

    Raises:
        RequestError: it is neither.
    """
    if RunFolder(path).holds_run():
        return path
    run = RunFolder(path.parent.parent)
    if path.is_dir() and path.parent == run.checkpoints and run.holds_run():
        newest = checkpoint_paths(run.checkpoints)[0]
        if path != newest:
            raise RequestError(
                f"a run goes on from its newest checkpoint, {newest.name}, not from {path.name}: "
                f"give {run.path}, or remove the newer ones"
            )
        return run.path
    raise RequestError(f"resume={str(path)!r} is no run folder: give one, or auto or never")
