"""The objectives by name, and objectives made of classes or functions of the caller."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitral.config.checks import check_choice
from vitral.config.run import ObjectiveSettings
from vitral.data.dataset import ImageDataset
from vitral.data.workers import Batch
from vitral.errors import RequestError, nearest
from vitral.evaluate.forward import evaluating
from vitral.models.model import Model
from vitral.training.objectives.base import MIXING, Loss, Objective, per_example
from vitral.training.objectives.classification import ClassObjective, judged_by_loss

OBJECTIVES: dict[str, tuple[str, str]] = {
    "softmax": ("classification", "Classification"),
    "sigmoid": ("classification", "Classification"),
}
"""(module in this package, class) by name. The settings of an objective, and everything else about
it, are defined in its module."""


def objective_named(name: str) -> type[Objective]:
    """Return the class of an objective.

    Raises:
        RequestError: the name is unknown; the message suggests the nearest one.
    """
    if name not in OBJECTIVES:
        raise RequestError(f"there is no objective {name!r}{nearest(name, OBJECTIVES)}")
    module, kind = OBJECTIVES[name]
    found: type[Objective] = getattr(
        importlib.import_module(f"vitral.training.objectives.{module}"), kind
    )
    return found


@dataclass(frozen=True)
class ObjectiveChoice:
    """The objective of a run, before there is a model."""

    name: str
    """As in the settings."""
    kind: type[Objective]
    given: Callable[..., Any] | None = None
    """The object that the caller gave instead of a name."""

    def build(self, model: nn.Module, settings: ObjectiveSettings) -> Objective:
        """Return the objective of a model."""
        if self.given is None or self.given is self.kind:
            return self.kind(model, settings)
        return self.kind(model, settings, function=self.given)  # type: ignore[call-arg]


def choose_objective(objective: Any) -> ObjectiveChoice:
    """Return the objective for a name, a class or a function.

    Args:
        objective: a name; a subclass of `Objective`; or a function (model, batch) -> loss or
            (loss, metrics), which may be a module with weights.

    Raises:
        RequestError: an unknown name, or none of these.
    """
    if isinstance(objective, str):
        return ObjectiveChoice(objective, objective_named(objective))
    name = getattr(objective, "__name__", type(objective).__name__)
    if isinstance(objective, type) and issubclass(objective, Objective):
        return ObjectiveChoice(name, objective, objective)
    if isinstance(objective, Objective):
        raise RequestError(
            f"an objective {name} that owns a model already: give the class, which is built on the "
            "run's model"
        )
    if not callable(objective):
        raise RequestError(
            f"an objective of type {name}: give a name, a subclass of Objective, or a function "
            "(model, batch) -> loss"
        )
    if (getattr(objective, "__module__", None) or "").startswith("torch.nn."):
        raise RequestError(
            f"the objective {name} of PyTorch is not called with (model, batch): give a function "
            "of these that returns the loss and uses it"
        )
    return ObjectiveChoice(name, FunctionObjective, objective)


ObjectiveFunction = Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]] | Tensor]
# Offsets added to all logits to classify a loss: that of a softmax changes only by rounding, that
# of a sigmoid grows linearly once every logit is far above 0.
_RISES = (0.0, 1.0, 20.0, 40.0, 60.0)
_ROUNDING = 1e-3


@dataclass(frozen=True)
class FunctionSettings(ObjectiveSettings):
    """Settings of a function of the caller's own."""

    output: str = "auto"
    """How the model's logits become probabilities, "softmax" or "sigmoid", which a function does
    not state. "auto" adds a constant to all logits of an image: softmax if the loss stays the same,
    as for a cross-entropy over classes; sigmoid if it grows linearly, as for one binary
    cross-entropy per class; else as the model states, which is softmax for fresh weights."""

    def __post_init__(self) -> None:
        check_choice(("auto", "softmax", "sigmoid"), output=self.output)


class FunctionObjective(ClassObjective):
    """Calls `function(model, batch)`, which returns the loss, or the loss and a dict of metrics.

    The loss is (N,), one value per example, or a scalar, used as the mean over the batch. The
    function may be a module with weights of its own: they are trained with the model.
    """

    settings_type: ClassVar[type[ObjectiveSettings]] = FunctionSettings
    mixing: ClassVar[bool] = True  # if the user sets it

    def __init__(
        self,
        model: nn.Module,
        settings: ObjectiveSettings | None = None,
        *,
        function: ObjectiveFunction,
    ) -> None:
        """Own a model, and the function's weights if it has some."""
        super().__init__(model, settings)
        assert isinstance(self.settings, FunctionSettings)
        self.function = function
        self.output = model.output if isinstance(model, Model) else "softmax"
        if self.settings.output != "auto":
            self._set_output(self.settings.output)

    @classmethod
    def fit_recipe(
        cls, recipe: Mapping[str, Any], given: Mapping[str, Any], data: ImageDataset
    ) -> dict[str, Any]:
        """Select the best model by its loss, and do not mix images unless given.

        A function may return no accuracy, and may not support mixed labels.
        """
        settings = super().fit_recipe(recipe, given, data)
        plain = {path: value for path, value in settings.items() if path not in MIXING}
        return judged_by_loss(plain, given)

    def begin(self, batch: Batch) -> list[str]:
        """Detect how logits become probabilities, unless it is set."""
        assert isinstance(self.settings, FunctionSettings)
        if self.settings.output != "auto":
            return []
        found, reason = self._detect_output(batch)
        self._set_output(found)
        return [
            f"objective {self.settings.name}: logits become probabilities by {found} ({reason}); "
            "set objective.output if not"
        ]

    def forward(self, batch: Batch) -> Loss:
        """Return the loss (N,) and the metrics, (N,) each, of every example."""
        result = self.function(self.model, batch)
        pair = result if isinstance(result, tuple) else (result, {})
        if not (len(pair) == 2 and isinstance(pair[0], Tensor) and isinstance(pair[1], Mapping)):
            raise RequestError(
                f"the objective {self.settings.name!r} gives a {type(result).__name__}: return the "
                "loss as a tensor, or the loss and a dict of metrics"
            )
        count = len(batch["valid"])
        values = {name: per_example(value, count) for name, value in pair[1].items()}
        return Loss(per_example(pair[0], count), values)

    def _set_output(self, output: str) -> None:
        self.output = output
        if isinstance(self.model, Model):
            self.model.output = output

    def _detect_output(self, batch: Batch) -> tuple[str, str]:
        """Return how logits become probabilities, and the reason."""
        if batch["label"].ndim == 2:
            return "sigmoid", "an image may have any classes"
        losses = self._losses_of_raised(batch)
        if losses is None:
            return self.output, "it does not call the model itself: nothing tells"
        rounding = _ROUNDING * (1 + losses[0].abs())
        if ((losses[1] - losses[0]).abs() <= rounding).all():
            return "softmax", "its loss stays when all logits of an image rise alike"
        first, second = losses[3] - losses[2], losses[4] - losses[3]
        if ((second - first).abs() <= _ROUNDING * (1 + first.abs())).all():
            return "sigmoid", "its loss grows evenly when all logits of an image rise alike"
        return self.output, "its loss does not tell"

    @torch.no_grad()
    def _losses_of_raised(self, batch: Batch) -> list[Tensor] | None:
        """Return the losses (N,) with `_RISES` added to the logits; None: the model is unused."""
        raised_by, num_calls = 0.0, 0

        def rise(_module: nn.Module, _inputs: Any, logits: Tensor) -> Tensor:
            nonlocal num_calls
            num_calls += 1
            return logits + raised_by

        losses = []
        handle = self.model.register_forward_hook(rise)
        try:
            with evaluating(self), torch.random.fork_rng(devices=[]):
                for raised_by in _RISES:  # noqa: B007 (read by the hook)
                    losses.append(self(batch).values)
        finally:
            handle.remove()
        return losses if num_calls else None
