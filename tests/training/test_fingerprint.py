"""Given parts of a run are identified by code, values and weights; others are refused."""

import abc
import enum
import functools
import sys
import threading
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitral.errors import RequestError
from vitral.training.fingerprint import parts_fingerprint

TEMPERATURE = 1.0


def fingerprint(part: Any) -> str:
    return parts_fingerprint(None, part, {})


def closed_over(value: Any) -> Callable[[], Any]:
    return lambda: value


def reads_a_global() -> float:
    return TEMPERATURE


def reads_a_global_inside() -> Callable[[], float]:
    def inner() -> float:
        return TEMPERATURE

    return inner


def calls_another() -> float:
    return reads_a_global()


def has_a_default(value: float = 1.0) -> float:
    return value


def has_another_default(value: float = 2.0) -> float:
    return value


has_another_default.__qualname__ = "has_a_default"


def reads_a_module(value: float) -> Any:
    return losses.scaled(value) * losses.RATE  # type: ignore[name-defined]


class Loss:
    """An object that can be called."""

    share = 0.5

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def __call__(self) -> Any:
        return self.scale

    def method(self) -> Any:
        return self.scale


class Colour(enum.Enum):
    RED, BLUE = 1, 2


@dataclass(frozen=True)
class Settings:
    rate: float


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(plain, plain)
def test_closures_are_equal_where_their_values_are(one: Any, other: Any) -> None:
    same = fingerprint(closed_over(one)) == fingerprint(closed_over(other))
    assert same == (repr(one) == repr(other))


VALUES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "arrays": (lambda: np.arange(3), lambda: np.arange(3) + 1),
    "types of arrays": (lambda: np.zeros(3, np.float32), lambda: np.zeros(3, np.int32)),
    "tensors": (lambda: torch.zeros(2), lambda: torch.ones(2)),
    "bfloat16": (lambda: torch.zeros(2).bfloat16(), lambda: torch.ones(2).bfloat16()),
    "dtypes": (lambda: torch.float32, lambda: torch.float64),
    "paths": (lambda: Path("a"), lambda: Path("b")),
    "sets": (lambda: {1, 2}, lambda: {1, 3}),
    "enums": (lambda: Colour.RED, lambda: Colour.BLUE),
    "records": (lambda: Settings(0.1), lambda: Settings(0.2)),
    "objects": (lambda: Loss(1), lambda: Loss(2)),
    "inner objects": (lambda: Loss(Loss(1)), lambda: Loss(Loss(2))),
    "methods": (lambda: Loss(1).method, lambda: Loss(2).method),
    "partials": (lambda: functools.partial(max, 1), lambda: functools.partial(max, 2)),
    "keywords": (lambda: functools.partial(max, a=1), lambda: functools.partial(max, a=2)),
    "functions": (lambda: has_a_default, lambda: reads_a_global),
    "built-in functions": (lambda: max, lambda: min),
    "torch functions": (lambda: torch.relu, lambda: torch.tanh),
    "modules' settings": (lambda: nn.Dropout(0.1), lambda: nn.Dropout(0.2)),
    "seeds of generators": (
        lambda: np.random.default_rng(0), lambda: np.random.default_rng(1),
    ),
}  # fmt: skip


def test_defaults_count() -> None:
    assert fingerprint(has_a_default) != fingerprint(has_another_default)


@pytest.mark.parametrize("function", [reads_a_global, reads_a_global_inside, calls_another])
def test_globals_that_are_read_count(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]
) -> None:
    before = fingerprint(function)
    assert fingerprint(function) == before
    monkeypatch.setattr(f"{__name__}.TEMPERATURE", 2.0)
    assert fingerprint(function) != before


def test_what_is_named_like_a_global_but_not_read_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reads_an_attribute(batch: Any) -> Any:
        return batch.TEMPERATURE

    before = fingerprint(reads_an_attribute)
    monkeypatch.setattr(f"{__name__}.TEMPERATURE", 2.0)
    assert fingerprint(reads_an_attribute) == before


def test_classes_count_with_their_code_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Loss)
    monkeypatch.setattr(Loss, "share", 0.6)
    changed = fingerprint(Loss)
    assert changed != before
    monkeypatch.setattr(Loss, "method", lambda self: 2 * self.scale)
    assert fingerprint(Loss) != changed


class Cut:
    """Has attributes of other kinds than numbers."""

    weights = np.ones(3)
    settings = Settings(0.1)

    @functools.cached_property
    def share(self) -> float:
        return 0.5

    @staticmethod
    @functools.lru_cache
    def scaled(value: float) -> float:
        return 2 * value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", np.zeros(3)),
        ("settings", Settings(0.2)),
        ("share", functools.cached_property(lambda self: 0.6)),
        ("scaled", staticmethod(functools.lru_cache(lambda value: 3 * value))),
    ],
)
def test_attributes_of_a_class_count_whatever_they_are(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(Cut)
    assert fingerprint(Cut) == before
    monkeypatch.setattr(Cut, name, value)
    assert fingerprint(Cut) != before


def test_what_is_read_of_a_module_of_ones_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = types.ModuleType("my_losses")
    exec("RATE = 0.5\nUNREAD = 1\ndef scaled(x):\n    return 2 * x\n", vars(losses))
    monkeypatch.setitem(globals(), "losses", losses)

    prints = [fingerprint(reads_a_module)]
    monkeypatch.setattr(losses, "UNREAD", 2)
    prints.append(fingerprint(reads_a_module))
    monkeypatch.setattr(losses, "RATE", 0.6)
    prints.append(fingerprint(reads_a_module))
    assert prints[0] == prints[1] != prints[2]


class Abstract(abc.ABC):
    @abc.abstractmethod
    def __call__(self) -> Any: ...


class Concrete(Abstract, typing.Generic[typing.TypeVar("T")]):  # type: ignore[misc]
    def __call__(self) -> Any:
        return 1


@dataclass(frozen=True)
class Scaled:
    scale: float

    def __call__(self) -> float:
        return self.scale


class Slots:
    __slots__ = ("__hidden", "scale")

    def __init__(self, scale: float, hidden: float = 0.0) -> None:
        self.scale, self.__hidden = scale, hidden


class Tail(Slots):
    """Has a slot of its base and attributes."""


class Head(nn.Module):
    def __init__(self, temperature: float, buffer: float = 0.0) -> None:
        super().__init__()
        self._temperature = temperature
        self.register_buffer("unsaved", torch.tensor(buffer), persistent=False)


def recurrent(weight: float) -> nn.Module:
    """Return what keeps weak references to its weights."""
    module = nn.LSTM(2, 2)
    for parameter in module.parameters():
        nn.init.constant_(parameter, weight)
    return module


VALUES |= {
    "slots": (lambda: Slots(1), lambda: Slots(2)),
    "private slots": (lambda: Slots(1, 1), lambda: Slots(1, 2)),
    "slots of a base": (lambda: Tail(1), lambda: Tail(2)),
    "private attributes of modules": (lambda: Head(1.0), lambda: Head(2.0)),
    "buffers that are not saved": (lambda: Head(1.0, 1.0), lambda: Head(1.0, 2.0)),
    "recurrent modules": (lambda: recurrent(0.0), lambda: recurrent(1.0)),
}


@pytest.mark.parametrize("what", VALUES)
def test_values_of_every_kind_are_told_apart(what: str) -> None:
    one, other = VALUES[what]
    first, again, second = (fingerprint(closed_over(make())) for make in (one, one, other))
    assert first == again
    assert first != second


@pytest.mark.parametrize("instance", [Concrete(), Scaled(1.0)], ids=["abstract", "record"])
def test_the_code_of_an_objects_class_counts(
    instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(instance)
    assert fingerprint(instance) == before
    monkeypatch.setattr(type(instance), "__call__", lambda self: 2)
    assert fingerprint(instance) != before


def imports_inside(value: float) -> Any:
    from losses_of_mine import scaled

    return scaled(value)


def imports_a_module_inside(value: float) -> Any:
    import losses_of_mine

    return losses_of_mine.scaled(value)


@pytest.mark.parametrize("function", [imports_inside, imports_a_module_inside])
def test_what_is_imported_inside_a_function_counts(
    function: Callable[[float], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("losses_of_mine")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    prints = []
    for factor in (2, 2, 3):
        exec(f"def scaled(x):\n    return {factor} * x\n", vars(module))
        prints.append(fingerprint(function))
    assert prints[0] == prints[1] != prints[2]


def test_what_can_not_be_imported_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "losses_of_mine", raising=False)
    assert fingerprint(imports_inside) == fingerprint(imports_inside)


def test_what_refers_to_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert fingerprint(closed_over(loop)) == fingerprint(closed_over(loop))


def test_a_module_counts_with_weights_and_settings() -> None:
    class Net(nn.Linear):
        def __init__(self, *, temperature: float, seed: int = 0) -> None:
            torch.manual_seed(seed)
            super().__init__(2, 2)
            self.temperature = temperature

    prints = [
        parts_fingerprint(Net(temperature=t, seed=s), "softmax", {})
        for t, s in ((1.0, 0), (1.0, 0), (2.0, 0), (1.0, 1))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_its_mode_is_no_setting() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    assert fingerprint(net.train()) == fingerprint(net.eval())


def test_where_a_class_of_ours_lies_does_not_count() -> None:
    def make(module: str) -> Any:
        kind = make_dataclass("Needs", ["views"])
        kind.__module__ = module
        return kind(2)

    here = fingerprint(closed_over(make("vitral.data.needs")))
    assert here == fingerprint(closed_over(make("vitral.elsewhere")))
    assert here != fingerprint(closed_over(make("other.needs")))


def test_nothing_given_has_no_fingerprint() -> None:
    assert parts_fingerprint("ViT-Mi/4", "softmax", {}) == ""


def test_metrics_count_with_their_names() -> None:
    one, other = ({name: reads_a_global} for name in "ab")
    assert parts_fingerprint(None, "softmax", one) != parts_fingerprint(None, "softmax", other)


def test_what_can_not_be_told_apart_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(RequestError, match=r"objective.lock of the objective of your own is of ty"):
        fingerprint(lambda: lock)


def test_what_a_script_or_notebook_defines_counts() -> None:
    """Whoever runs it: `__main__` may be the file of an installed program."""
    prints = []
    for value in (1, 2):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def loss():\n    return {value}\n", names)
        prints.append(fingerprint(names["loss"]))
    assert prints[0] != prints[1]
