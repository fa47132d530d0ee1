"""Build what a run trains: its model, its objective and its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vitral.data.loader import evaluation_batches
from vitral.data.needs import Draw, Needs
from vitral.errors import RequestError
from vitral.evaluate.forward import with_preparation
from vitral.models.build import build_model
from vitral.models.model import Model
from vitral.training.best import BestModel
from vitral.training.objectives.base import Objective, check_objective, result_names
from vitral.training.optimizer import build_optimizer
from vitral.training.state import TrainState, WeightAverage, decay_of

if TYPE_CHECKING:
    from vitral.data.dataset import ImageDataset
    from vitral.data.examples import Examples
    from vitral.runtime.distributed import Machine
    from vitral.training.context import ProgressView
    from vitral.training.objectives.table import ObjectiveChoice
    from vitral.training.resolve import ResolvedRun
    from vitral.training.run_folder import RunFolder
    from vitral.training.validation import MetricFunction

BEGIN_EXAMPLES = 8
"""Number of examples that an objective may inspect before training."""


@dataclass(frozen=True)
class Run:
    """The fixed part of a run."""

    resolved: ResolvedRun
    data: ImageDataset
    extra: Mapping[str, ImageDataset]
    """The objective's additional data sources, by name."""
    title: str
    """A short name of the data."""
    model: str | nn.Module | None
    """A name, or the module to start from."""
    objective: ObjectiveChoice
    metrics: Mapping[str, MetricFunction]
    """Measured in addition to the objective's own."""
    machine: Machine
    view: ProgressView
    folder: RunFolder
    command: str
    """The equivalent command line or call."""
    fingerprint: str
    """Hash of the data."""
    parts: str
    """Hash of the parts that were given as objects instead of by name."""
    zero_head: bool
    """Whether the head is set to zero before the first step."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the model, stored in its folder."""

    @property
    def num_outputs(self) -> int:
        """The number of outputs of the model's head; 0: there is no head."""
        return self.objective.kind.num_outputs(self.data, self.resolved.config.objective)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names of the model's outputs; None if the outputs are not classes."""
        classes = self.data.classes
        return classes if classes and len(classes) == self.num_outputs else None


def build_network(run: Run) -> nn.Module:
    """Return the model with its initial weights, on its device.

    Raises:
        RequestError: the outputs of the caller's own module do not fit the objective.
    """
    config, model = run.resolved.config, run.model
    torch.manual_seed(config.train.seed)
    if isinstance(model, nn.Module):
        model = model.to(run.machine.device)
        _check_outputs(model, run)
        if isinstance(model, Model):
            model.classes = run.classes
        return model
    assert config.model is not None
    network = build_model(config.model, preprocessing=config.preprocessing, classes=run.classes)
    return network.to(run.machine.device)


@torch.no_grad()
def _check_outputs(model: nn.Module, run: Run) -> None:
    config = run.resolved.config
    ready, count = config.preprocessing, run.num_outputs
    images = torch.zeros(2, ready.channels, *ready.size, device=run.machine.device)
    was_training = model.training
    try:
        shape = tuple(model.eval()(images).shape)
    except RuntimeError as error:
        raise RequestError(
            f"your own model does not take images of {tuple(images.shape)}: {error}"
        ) from None
    model.train(was_training)
    if count and shape != (2, count):
        raise RequestError(
            f"your own model gives outputs of shape {shape} for 2 images of {count} classes: "
            f"it must give (2, {count})"
        )


def build_objective(run: Run, network: nn.Module) -> Objective:
    """Return the objective that owns the model, after its `begin` has seen some examples.

    Raises:
        RequestError: the training loop can't train it.
    """
    config = run.resolved.config
    objective = run.objective.build(network, config.objective)
    objective.to(run.machine.device)
    check_objective(objective)
    if isinstance(network, Model):
        network.gradient_checkpointing = config.train.gradient_checkpointing
    if type(objective).begin is not Objective.begin:
        for sentence in _look_at_data(objective, run):
            run.view.log(sentence)
    return objective


def training_warnings(run: Run, objective: Objective) -> list[str]:
    """Return warnings about how an objective is trained in this run."""
    settings, machine = run.resolved.config.train, run.machine
    # On CUDA, BatchNorm is synchronised over processes.
    by_processes = machine.ranks.world_size > 1 and machine.device.type != "cuda"
    in_parts = by_processes or 0 < settings.micro_batch_size < settings.batch_size
    norms = [m for m in objective.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if (
        not (in_parts and norms) or objective.coupling == "batch"
    ):  # "batch" refuses BatchNorm on parts
        return []
    return [
        "warning: BatchNorm sees each part of a batch by itself: the result differs from that of "
        "whole batches"
    ]


def _look_at_data(objective: Objective, run: Run) -> list[str]:
    examples, how = run.data.splits["train"], run.resolved.config.preprocessing
    batches = evaluation_batches(
        examples,
        preprocessing=how,
        batch_size=BEGIN_EXAMPLES,
        errors={},
        workers=0,
        indices=np.arange(min(BEGIN_EXAMPLES, len(examples))),
        needs=needs_of(objective),
    )
    look = with_preparation(
        lambda batch: batch,
        device=run.machine.device,
        preprocessing=how,
        precision=torch.float32,
    )
    return objective.begin(dict(look(next(batches))))


def needs_of(objective: Objective) -> Needs:
    """Return what a batch must contain: the objective's needs, and draws for stochastic depth."""
    needs = objective.needs
    counts = [m.num_drop_paths for m in objective.modules() if isinstance(m, Model)]
    if not any(counts):
        return needs
    drawn = {**needs.draws, "uniforms/drop_path": Draw(max(counts), per_view=True)}
    return replace(needs, draws=drawn)


def build_state(run: Run, objective: Objective) -> TrainState:
    """Return the training state before the first step."""
    config = run.resolved.config
    optimizer = build_optimizer(objective, config.optimizer, device=run.machine.device)
    best = None
    if config.evaluation.keep_best:
        best = BestModel(
            objective,
            within=config.evaluation.best_within,
            num_images=len(run.data.splits["validation"]),
        )
    decay = config.train.ema_decay
    if config.train.ema:
        decay = decay_of(config.train.ema, total_steps=config.train.steps)
    average = WeightAverage(objective, decay=decay) if decay else None
    if average and not result_names(objective).values() & average.tensors.keys():
        raise RequestError(
            "train.ema and train.ema_decay average what is trained, none of which is in the result "
            f"of the objective {config.objective.name!r}: leave them out"
        )
    return TrainState(objective, optimizer, average, best)


def examples_of(data: ImageDataset) -> Examples:
    """Return the examples of an additional source: its training split, or all of it."""
    return data.splits["train"] if data.has_own_splits else data.everything()
