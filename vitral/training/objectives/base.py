"""The base class of objectives, which own everything that is trained, and its checks."""

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
from vitral.files.layout import check_file_names

COUPLINGS = ("example", "weighted", "batch")
RESERVED = (
    "loss", "step", "epoch", "split", "learning_rate", "grad_norm", "num_examples", "weight",
)  # fmt: skip
"""Names that metrics may not have."""
MIXING = ("augment.mixup", "augment.cutmix")
"""Settings that mix images with their classes."""
MOVING = ("augment.randaugment", "augment.randaugment_magnitude")
"""Settings that move pixels, which masks do not follow."""
OF_SHARES = ("evaluation.best_within",)
"""Settings that require a primary metric that is a share of examples."""
OF_TRAINED = ("train.ema", "train.ema_decay")
"""Settings that average trained weights, which requires a result made of them."""


class Loss(NamedTuple):
    """Loss and metrics of examples."""

    values: Tensor
    """(N,): the loss of each example. With weights, the summand of each example in a sum that is
    divided by the sum of weights: (N,), or (N, parts) if each part has its own weights."""
    metrics: dict[str, Tensor]
    """Logged values, (N,) each; averaged like the (first part of the) loss."""


@dataclass(frozen=True)
class StepInfo:
    """The position of a step in a run, for schedules and the hooks around a step."""

    step: int
    """From 0."""
    total_steps: int
    steps_per_epoch: int
    optimizer: torch.optim.Optimizer
    """Its groups have `lr`, `weight_decay`, and `decays`: whether weight decay applies."""
    finite: Tensor
    """A scalar on the device: 1, or 0 once the loss or gradient of a step was not finite, after
    which nothing is updated. `move` respects it."""

    @property
    def epoch(self) -> float:
        """Epochs done before this step."""
        return self.step / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the run done before this step, in [0, 1)."""
        return self.step / self.total_steps

    @torch.no_grad()
    def move(self, tensors: Iterable[Tensor], towards: Iterable[Tensor], *, share: float) -> None:
        """Interpolate tensors in place towards others, such as a teacher towards its student.

        With share 1 they become copies of the others, whatever their dtype.

        If the step was not finite they do not change.
        """
        for tensor, goal in zip(tensors, towards, strict=True):
            moved = goal.to(tensor.dtype)
            if share != 1:
                moved = torch.lerp(tensor, moved, share)
            tensor.copy_(torch.where(self.finite > 0, moved, tensor))


class Objective(nn.Module):
    """Owns the model and everything else that is trained.

    The training loop uses only this interface, and no objective by name. The optimizer gets all
    parameters except those that are frozen when a run begins, such as a teacher's. Checkpoints hold
    all tensors; those of the model have the prefix `model.`. `train` puts all modules into training
    mode: one that shall stay in evaluation mode, such as a teacher with dropout, overrides it.

    Class attributes state what must be known before there is a model: which data is opened
    (`label`, `targets`, `extra_sources`), the width of the head (`num_outputs`), the settings.
    """

    settings_type: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    """A frozen dataclass of the objective's settings, `objective.*` in the config."""
    coupling: ClassVar[str] = "example"
    """"example": the loss of an example depends only on it. "weighted": likewise, and examples are
    weighted by `weights`, which depend only on the targets. "batch": the loss depends on all
    examples of the step, as for a contrastive loss, a centre or BatchNorm: `encode` and `couple`
    then replace `forward`."""
    label: ClassVar[bool] = True
    """Whether class labels are read; if not, data without class folders can be opened."""
    targets: ClassVar[tuple[str, ...]] = ()
    """Kinds of targets besides classes, of `data.needs.TARGETS`."""
    mixing: ClassVar[bool] = False
    """Whether mixed labels (mixup, CutMix) are supported."""
    is_judged_by_share: ClassVar[bool] = False
    """Whether the primary metric is a share of examples, which has a standard error."""

    model: nn.Module
    uses_all = False
    """Whether each trained parameter has a gradient in every step: then DDP need not search for
    unused parameters."""

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        """Own a model.

        Args:
            model: the network that users load in the end.
            settings: of `settings_type`; None: its defaults.
        """
        super().__init__()
        self.model = model
        self.settings = settings or self.settings_type()

    # Supported data and models, before there is a model.

    @classmethod
    def check_data(cls, data: ImageDataset, settings: ObjectiveSettings) -> None:
        """Check that the objective supports the data.

        Raises:
            RequestError: it does not; the message says what to do.
        """

    @classmethod
    def num_outputs(cls, data: ImageDataset, settings: ObjectiveSettings) -> int:
        """Return the number of outputs of the model's head; 0: there is no head."""
        return 0

    @classmethod
    def extra_sources(cls, settings: ObjectiveSettings) -> Mapping[str, float]:
        """Return the data sources besides the run's own, with their shares of a batch."""
        return {}

    @classmethod
    def fit_recipe(
        cls, recipe: Mapping[str, Any], given: Mapping[str, Any], data: ImageDataset
    ) -> dict[str, Any]:
        """Return a recipe's settings, by path, without those that do not apply to this objective.

        Args:
            recipe: its settings.
            given: settings that the user has given.
            data: of the run.
        """
        disabled_augmentations = {
            MIXING: not cls.mixing,
            MOVING: MASK in cls.targets,
            OF_SHARES: not cls.is_judged_by_share,
            OF_TRAINED: cls.result is not Objective.result,
        }
        dropped = {
            path for paths, is_unfit in disabled_augmentations.items() if is_unfit for path in paths
        }
        return {path: value for path, value in recipe.items() if path not in dropped}

    # Contents of a batch.

    @property
    def needs(self) -> Needs:
        """The required contents of a batch."""
        return Needs(
            label=self.label,
            targets=self.targets,
            mixing=self.mixing,
            sources=self.extra_sources(self.settings),
        )

    def begin(self, batch: Batch) -> list[str]:
        """Inspect some training examples, without augmentation, before training.

        Returns:
            Sentences for the log.
        """
        return []

    # The loss.

    def forward(self, batch: Batch) -> Loss:
        """Return the loss and metrics of each example of a micro-batch.

        With coupling "batch" the micro-batch is coupled by itself.
        """
        if self.coupling == "batch":
            return self.couple(self.encode(batch))
        raise RequestError(f"{type(self).__name__} does not say its loss: define forward")

    def weights(self, batch: Batch) -> Tensor:
        """Return the weight of each example, (N,) or (N, parts), computed only from its targets.

        Used with coupling "weighted", for example the number of labelled pixels. Called before the
        forward pass, without gradients.
        """
        raise RequestError(f"{type(self).__name__} has no weights: define them")

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Return the inputs of the coupled loss for one micro-batch, each (N, ...).

        Used with coupling "batch", for everything that treats examples independently, such as the
        network. It may run twice, so that only activations of one micro-batch are in memory.
        """
        raise RequestError(f"{type(self).__name__} has no encode: define it")

    def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
        """Return the loss of the outputs of `encode` for all valid examples of the step.

        Used with coupling "batch". The rows of all micro-batches and processes are in the order of
        the step; every process computes the same.
        """
        raise RequestError(f"{type(self).__name__} has no couple: define it")

    # Hooks around a step.

    def before_step(self, at: StepInfo) -> None:
        """Set scheduled values before the first forward pass; they may depend only on the step."""

    def on_gradients(self, at: StepInfo) -> None:
        """Change the accumulated gradients before the run's gradient clipping."""

    def after_step(self, at: StepInfo) -> None:
        """Update other state after the optimizer, by `at.move`: a teacher, a centre, a queue."""

    # Scoring and results.

    def outputs(self, batch: Batch, *, final: bool) -> dict[str, Tensor]:
        """Return the inputs of `evaluator` for a batch by name, (N, ...) each; in evaluation mode.

        Args:
            batch: with images in the model's range.
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
        """Return an empty evaluator, which scores the model on a split.

        Args:
            data: of the run.
            final: whether the run's result is scored, and files may be written; else the model is
                scored during training.
        """
        return MeanEvaluator()

    def result(self) -> nn.Module:
        """Return the network that is scored, saved and published, such as a teacher."""
        return self.model

    def parts(self) -> dict[str, nn.Module]:
        """Return modules that are published besides the model, by name, such as a decoder."""
        return {}


def check_objective(objective: Objective) -> None:
    """Check before training that the loop can train an objective.

    Raises:
        RequestError: its attributes are invalid or inconsistent, or it has nothing to train.
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
        dict(type(objective).extra_sources(objective.settings)),
    )
    if (needs.label, needs.targets, dict(needs.sources)) != stated:
        raise RequestError(
            f"{kind}.needs has other labels, targets or sources than the class states, by which "
            "data is opened: change the copy that super().needs gives"
        )
    result_names(objective)
    for name, part in objective.parts().items():
        if not isinstance(part, nn.Module):
            raise RequestError(
                f"{kind}.parts has {name!r} of type {type(part).__name__}: give modules"
            )
    check_file_names(objective.parts(), what=f"{kind}.parts")


def checked_loss(objective: Objective, loss: Any, *, rows: int) -> Loss:
    """Return an objective's loss for a number of rows after checking it.

    Raises:
        RequestError: a wrong type or shape, or a metric with a reserved name.
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
    """Check that the name of a metric is not reserved.

    Raises:
        RequestError: it is.
    """
    if name in RESERVED:
        raise RequestError(
            f"{of}: a metric called {name!r}, which rows of metrics have already: call it otherwise"
        )


def checked_weights(objective: Objective, weights: Any, *, rows: int) -> Tensor:
    """Return the weights of a number of rows after checking them, (rows, parts) float32.

    Raises:
        RequestError: a wrong type or shape.
    """
    found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
    if not isinstance(weights, Tensor) or len(found) not in (1, 2) or found[0] != rows:
        raise RequestError(
            f"{type(objective).__name__}.weights of {rows} rows gives {found}: give ({rows},), or "
            f"({rows}, parts) where the loss has parts"
        )
    return by_part(weights.float())


def by_part(values: Tensor) -> Tensor:
    """Return values as (N, parts); (N,) becomes (N, 1)."""
    return values.unsqueeze(1) if values.ndim == 1 else values


def result_names(objective: Objective) -> dict[str, str]:
    """Return the objective's name of each tensor of the result, by the result's name.

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
    """Return one value per example; a scalar is expanded.

    Raises:
        RequestError: not a tensor, or another shape.
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
