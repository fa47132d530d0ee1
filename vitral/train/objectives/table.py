"""The objectives by name, and what a caller may give in place of one."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitral.errors import RequestError, nearest

if TYPE_CHECKING:
    from torch import nn

    from vitral.spec.run import ObjectiveSettings
    from vitral.train.objectives.base import Objective

OBJECTIVES: dict[str, tuple[str, str]] = {
    "softmax": ("classification", "Classification"),
    "sigmoid": ("classification", "Classification"),
}
"""The module in this package, and the class in it, by name. An objective's own settings, and all
else that is to be known of it, stand in its module."""


def objective_named(name: str) -> "type[Objective]":
    """Return an objective's class.

    Raises:
        RequestError: there is none of that name; the nearest is named.
    """
    if name not in OBJECTIVES:
        raise RequestError(f"there is no objective {name!r}{nearest(name, OBJECTIVES)}")
    module, kind = OBJECTIVES[name]
    found: type[Objective] = getattr(
        importlib.import_module(f"vitral.train.objectives.{module}"), kind
    )
    return found


@dataclass(frozen=True)
class ObjectiveChoice:
    """The objective of a run, before there is a model."""

    name: str
    """In the settings."""
    kind: "type[Objective]"
    given: Callable[..., Any] | None = None
    """What a caller gave in place of a name."""

    def build(self, model: "nn.Module", settings: "ObjectiveSettings") -> "Objective":
        """Return the objective of a model."""
        if self.given is None or self.given is self.kind:
            return self.kind(model, settings)
        return self.kind(model, settings, function=self.given)  # type: ignore[call-arg]


def choose_objective(objective: Any) -> ObjectiveChoice:
    """Return the objective that a name, a class or a function stands for.

    Args:
        objective: a name; a subclass of `Objective`; or a function (model, batch) -> loss or
            (loss, metrics), which may be a module with weights.

    Raises:
        RequestError: an unknown name, or none of these.
    """
    from vitral.train.objectives.base import Objective
    from vitral.train.objectives.function import FunctionObjective

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
