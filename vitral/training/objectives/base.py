"""What every objective offers: it owns all that learns, and says what it needs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vitral.config.run import ObjectiveSettings
from vitral.data.dataset import ImageDataset
from vitral.data.needs import MASK, Needs
from vitral.data.workers import Batch
from vitral.errors import RequestError
from vitral.evaluate.evaluator import Evaluator, MeanEvaluator

COUPLINGS = ("example", "weighted", "batch")
RESERVED = (
    "loss", "step", "epoch", "split", "learning_rate", "grad_norm", "num_examples", "weight",
)  # fmt: skip
"""What metrics may not be called."""
MIXING = ("augment.mixup", "augment.cutmix")
"""Settings that mix images with their classes."""
MOVING = ("augment.randaugment", "augment.randaugment_magnitude")
"""Settings that move pixels in ways that masks do not follow."""
OF_SHARES = ("evaluation.best_within",)
"""Settings that need a figure that is a share of examples."""
OF_TRAINED = ("train.ema", "train.ema_decay")
"""Settings that average what is trained, for a result that is."""


class Loss(NamedTuple):
    """What an objective makes of examples."""

    values: Tensor
    """(N,): the loss of each example. With weights, what each adds to the sum that is divided by
    the sum of weights: (N,), or (N, parts) where each part has weights of its own."""
    metrics: dict[str, Tensor]
    """What is logged beside it, (N,) each; averaged as the (first part of the) loss is."""


@dataclass(frozen=True)
class StepInfo:
    """Where in a run a step is, for schedules and for what happens around it."""

    step: int
    """From 0."""
    total_steps: int
    steps_per_epoch: int
    optimizer: torch.optim.Optimizer
    """Its groups have `lr`, `weight_decay`, and `decays`: whether they are of what decays."""
    finite: Tensor
    """A scalar on the device: 1, or 0 once loss or gradient of a step were not finite, from when on
    nothing is updated. `move` heeds it."""

    @property
    def epoch(self) -> float:
        """Epochs done before this step."""
        return self.step / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the run that is done before this step, 0 in the first, below 1."""
        return self.step / self.total_steps

    @torch.no_grad()
    def move(self, tensors: Iterable[Tensor], towards: Iterable[Tensor], *, share: float) -> None:
        """Move state by a share of the way, such as a teacher to its student.

        With share 1 it becomes what it moves towards, whatever its type.

        Where the step was not finite it stays, whatever it should move towards.
        """
        for tensor, goal in zip(tensors, towards, strict=True):
            moved = goal.to(tensor.dtype)
            if share != 1:
                moved = torch.lerp(tensor, moved, share)
            tensor.copy_(torch.where(self.finite > 0, moved, tensor))


class Objective(nn.Module):
    """Owns the model and whatever else learns.

    The loop knows of an objective what stands here, and no objective by name. Its parameters are
    the optimizer's, but those frozen when a run begins, such as a teacher's; its tensors are the
    checkpoint's; names begin with `model.` for the model. `train` puts all modules into training
    mode: one that shall stay as in evaluation, such as a teacher with dropout, overrides it.

    Class attributes say what must be known before there is a model: what data is opened (`label`,
    `targets`, `further_sources`), how wide a head is (`num_outputs`), its settings.
    """

    settings_type: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    """A frozen dataclass of its own settings, `objective.*` in the tree."""
    coupling: ClassVar[str] = "example"
    """"example": the loss of an example depends on it alone. "weighted": likewise, and it counts by
    `weights`, which the targets alone tell. "batch": it depends on all examples of the step, as a
    contrastive loss, a centre or BatchNorm do: `encode` and `couple` then stand for `forward`."""
    label: ClassVar[bool] = True
    """Whether classes are read; without, data without class folders can be opened."""
    targets: ClassVar[tuple[str, ...]] = ()
    """Kinds of targets beside classes, of `data.needs.TARGETS`."""
    mixing: ClassVar[bool] = False
    """Whether labels that were mixed are understood."""
    is_judged_by_share: ClassVar[bool] = False
    """Whether the primary figure is a share of the examples, of which a standard error is known."""

    model: nn.Module
    uses_all = False
    """Whether each parameter that is trained has a gradient in every step: then several processes
    need not look for those that have none."""

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        """Own a model.

        Args:
            model: what a user loads in the end.
            settings: of `settings_type`; None: its defaults.
        """
        super().__init__()
        self.model = model
        self.settings = settings or self.settings_type()

    # What data and model it is for, before there is a model.

    @classmethod
    def check_data(cls, data: ImageDataset, settings: ObjectiveSettings) -> None:
        """Make sure that data can be trained on.

        Raises:
            RequestError: it can't, and what to do.
        """

    @classmethod
    def num_outputs(cls, data: ImageDataset, settings: ObjectiveSettings) -> int:
        """Return how many outputs the model's head must have; 0: there is no head."""
        return 0

    @classmethod
    def further_sources(cls, settings: ObjectiveSettings) -> Mapping[str, float]:
        """Return the sources beside the run's own data, with the share of a batch of each."""
        return {}

    @classmethod
    def fit_recipe(
        cls, recipe: Mapping[str, Any], given: Mapping[str, Any], data: ImageDataset
    ) -> dict[str, Any]:
        """Return a recipe's settings, by path, without what has no place with this objective.

        Args:
            recipe: as it stands.
            given: what a person asked for.
            data: opened.
        """
        unfit = {
            MIXING: not cls.mixing,
            MOVING: MASK in cls.targets,
            OF_SHARES: not cls.is_judged_by_share,
            OF_TRAINED: cls.result is not Objective.result,
        }
        dropped = {path for paths, is_unfit in unfit.items() if is_unfit for path in paths}
        return {path: value for path, value in recipe.items() if path not in dropped}

    # What a batch must hold.

    @property
    def needs(self) -> Needs:
        """What a batch must hold."""
        return Needs(
            label=self.label,
            targets=self.targets,
            mixing=self.mixing,
            sources=self.further_sources(self.settings),
        )

    def begin(self, batch: Batch) -> list[str]:
        """Look at some training examples, unchanged, before anything is trained.

        Returns:
            What a person should know, in sentences.
        """
        return []

    # The loss.

    def forward(self, batch: Batch) -> Loss:
        """Return the loss and metrics of each example of a micro-batch.

        With coupling "batch" it is those of a micro-batch that is coupled by itself.
        """
        if self.coupling == "batch":
            return self.couple(self.encode(batch))
        raise RequestError(f"{type(self).__name__} does not say its loss: define forward")

    def weights(self, batch: Batch) -> Tensor:
        """Return what each example counts for, (N,) or (N, parts), from its targets alone.

        With coupling "weighted": such as the number of its pixels that have a class. Asked for
        before the forward pass, without gradients.
        """
        raise RequestError(f"{type(self).__name__} has no weights: define them")

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Return what one micro-batch gives to the coupled loss, each (N, ...).

        With coupling "batch". Everything that sees one example at a time, such as the network; it
        may be computed twice, so that memory holds the activations of one micro-batch only.
        """
        raise RequestError(f"{type(self).__name__} has no encode: define it")

    def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
        """Return the loss over what `encode` gave for all valid examples of the step.

        With coupling "batch". The rows are in the order of the step, those of all micro-batches and
        processes; every process computes the same.
        """
        raise RequestError(f"{type(self).__name__} has no couple: define it")

    # What happens around a step.

    def before_step(self, at: StepInfo) -> None:
        """Set what moves with the step, before the first forward pass: a function of it alone."""

    def on_gradients(self, at: StepInfo) -> None:
        """Change gradients when all are there, before they are clipped as the run says."""

    def after_step(self, at: StepInfo) -> None:
        """Move state of its own after the optimizer, by `at.move`: a teacher, a centre, a queue."""

    # What is scored, kept and shipped.

    def outputs(self, batch: Batch, *, final: bool) -> dict[str, Tensor]:
        """Return what `evaluator` reads of a batch, named, (N, ...) each; in evaluation mode.

        Args:
            batch: its images in the model's range.
            final: as for `evaluator`.
        """
        if self.coupling == "batch" or len(self.needs.views) > 1:
            raise RequestError(
                f"{type(self).__name__} has a loss of whole batches or of several views, which is "
                "no figure of one example: define outputs"
            )
        loss = self(batch)
        found = {"loss": loss.values, **loss.metrics}
        if self.coupling == "weighted":
            weights = self.weights(batch)
            found["weight"] = weights if weights.ndim == 1 else weights[:, 0]
            if loss.values.ndim == 2:  # the sum of parts, each over its own weights
                raise RequestError(
                    f"{type(self).__name__} has a loss of several parts: define its outputs"
                )
        return found

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        """Return what measures the model on a split, empty.

        Args:
            data: of the run.
            final: whether the run's result is scored, and files may be written; else the model is
                while it trains.
        """
        return MeanEvaluator()

    def result(self) -> nn.Module:
        """Return the network that is scored, kept and shipped, such as a teacher."""
        return self.model

    def parts(self) -> dict[str, nn.Module]:
        """Return what is published beside the model, by name, such as a decoder."""
        return {}


def check_objective(objective: Objective) -> None:
    """Make sure that an objective is one that the loop can train, before it does.

    Raises:
        RequestError: what it states can't be, or nothing of it learns.
    """
    kind = type(objective).__name__
    if objective.coupling not in COUPLINGS:
        raise RequestError(
            f"{kind}.coupling={objective.coupling!r}: give one of {', '.join(COUPLINGS)}"
        )
    if not any(parameter.requires_grad for parameter in objective.parameters()):
        raise RequestError(
            f"{kind} has no parameter that requires a gradient: there is nothing to train"
        )
    needs = objective.needs
    if not isinstance(needs, Needs):
        raise RequestError(f"{kind}.needs is {type(needs).__name__}: give a property of type Needs")
    stated = (
        objective.label,
        objective.targets,
        dict(type(objective).further_sources(objective.settings)),
    )
    if (needs.label, needs.targets, dict(needs.sources)) != stated:
        raise RequestError(
            f"{kind}.needs has other labels, targets or sources than the class states, by which "
            "data is opened: change the copy that super().needs gives"
        )
    result_names(objective)
    for name, part in objective.parts().items():
        if not isinstance(part, nn.Module) or not re.fullmatch(r"[\w-]+", name):
            raise RequestError(
                f"{kind}.parts has {name!r} of type {type(part).__name__}: give modules by names "
                "of letters and digits, which become folders"
            )


def checked_loss(objective: Objective, loss: Any, *, rows: int) -> Loss:
    """Return what an objective made of a number of rows, if it is a loss that can be trained.

    Raises:
        RequestError: another type or shape, or a metric of a name that rows have already.
    """
    kind = type(objective).__name__
    if not (isinstance(loss, tuple) and len(loss) == 2 and isinstance(loss[1], Mapping)):
        raise RequestError(f"{kind} gives a {type(loss).__name__}: give Loss(values, metrics)")
    values, metrics = loss
    tensors = {"the loss": values, **{f"the metric {name!r}": v for name, v in metrics.items()}}
    for name, tensor in tensors.items():
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        may_have_parts = name == "the loss" and objective.coupling == "weighted"
        is_right = found == (rows,) or (may_have_parts and len(found) == 2 and found[0] == rows)
        if not is_right:
            raise RequestError(f"{kind}: {name} of {rows} rows is {found}: give ({rows},)")
    if not values.is_floating_point():
        raise RequestError(f"{kind}: the loss is of type {values.dtype}: give floats")
    for name in metrics:
        check_metric_name(name, of=kind)
    return Loss(values, dict(metrics))


def check_metric_name(name: str, *, of: str) -> None:
    """Make sure that a metric's name is its own.

    Raises:
        RequestError: rows of metrics have it already.
    """
    if name in RESERVED:
        raise RequestError(
            f"{of}: a metric called {name!r}, which rows of metrics have already: call it otherwise"
        )


def checked_weights(objective: Objective, weights: Any, *, rows: int) -> Tensor:
    """Return what a number of rows count for, (rows, parts) float32.

    Raises:
        RequestError: another type or shape.
    """
    found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
    if not isinstance(weights, Tensor) or len(found) not in (1, 2) or found[0] != rows:
        raise RequestError(
            f"{type(objective).__name__}.weights of {rows} rows gives {found}: give ({rows},), or "
            f"({rows}, parts) where the loss has parts"
        )
    return by_part(weights.float())


def by_part(values: Tensor) -> Tensor:
    """Return values (N,) of a loss of one part as (N, 1)."""
    return values.unsqueeze(1) if values.ndim == 1 else values


def result_names(objective: Objective) -> dict[str, str]:
    """Return for each tensor of the result, by its own name, the one that the objective has.

    Raises:
        RequestError: the result has a tensor that the objective does not own.
    """
    owned = {id(tensor): name for name, tensor in objective.state_dict(keep_vars=True).items()}
    names = {}
    for name, tensor in objective.result().state_dict(keep_vars=True).items():
        if id(tensor) not in owned:
            raise RequestError(
                f"{type(objective).__name__}.result has {name!r}, which is no tensor of the "
                "objective: nothing would save it; give a module that the objective owns"
            )
        names[name] = owned[id(tensor)]
    return names


def per_example(value: Tensor, count: int) -> Tensor:
    """Return one value an example; a scalar stands for each of them.

    Raises:
        RequestError: no tensor, or another shape.
    """
    if not isinstance(value, Tensor):
        raise RequestError(
            f"an objective or metric of type {type(value).__name__}: return a tensor, one value an "
            "example, or a scalar mean"
        )
    if value.ndim == 0:
        return value.expand(count)
    if value.shape != (count,):
        raise RequestError(
            f"an objective or metric of shape {tuple(value.shape)}: return ({count},), one value "
            "an example, or a scalar mean"
        )
    return value
