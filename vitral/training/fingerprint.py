"""Fingerprints of the parts of a run that are objects, such as a module or a function."""

import abc
import contextlib
import dataclasses
import dis
import enum
import functools
import hashlib
import importlib
import importlib.util
import pickle
import sys
import sysconfig
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vitral.errors import RequestError
from vitral.models.model import Model
from vitral.models.weights.provenance import weights_parts

_PLAIN = (
    str | bytes | bool | int | float | complex | None | torch.dtype | torch.device | range | slice
)

_COMPILED = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_INSTALLED = ("purelib", "platlib")
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
"""Attributes of torch's internal bookkeeping."""
_WITHOUT_STATE = (object, abc.ABC, typing.Generic, typing.Protocol)
"""Base classes that contribute no state to an object."""


def parts_fingerprint(
    model: str | nn.Module | None,
    objective: str | Callable[..., Any],
    metrics: Mapping[str, Callable[..., Any]],
) -> str:
    """Return a hash of the parts given as objects; empty if all parts are given by name.

    Args:
        model: for a `Model`, names, shapes and values of its weights are hashed, since settings
            determine the rest; for another module also its code and its other attributes.
        objective: for a function, its code and every value that it can see are hashed: defaults,
            closure variables and the globals that it names; for an object its class and
            attributes; for a module also its weights.
        metrics: hashed as objectives are.

    Raises:
        RequestError: a part has a value for which equality can't be determined.
    """
    parts: list[bytes] = []
    if isinstance(model, Model):
        parts += weights_parts(model)
    elif isinstance(model, nn.Module):
        parts.append(_digest("model", model))
    if not isinstance(objective, str):
        parts.append(_digest("objective", objective))
    parts += [name.encode() + _digest(f"metric {name}", part) for name, part in metrics.items()]
    if not parts:
        return ""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _digest(name: str, value: Any) -> bytes:
    digest = hashlib.sha256()
    for part in _Description(name).of(value, name):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


class _Description:
    """Serialises any value into identifying bytes; a value seen before becomes its number."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._seen: dict[int, tuple[int, Any]] = {}

    def of(self, value: Any, path: str) -> Iterator[bytes]:
        """Yield the identifying bytes of a value at `path` within the part."""
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}".encode()
            return
        if id(value) in self._seen:
            yield f"again {self._seen[id(value)][0]}".encode()
            return
        self._seen[id(value)] = (len(self._seen), value)  # kept alive so that its id is not reused
        yield from self._structure(value, path)

    def _structure(self, value: Any, path: str) -> Iterator[bytes]:
        kind = type(value)
        yield _name_of(kind).encode()
        for kinds, serialise in self._serialisers:
            if isinstance(value, kinds):
                yield from serialise(value, path)
                return
        if not _is_library(kind.__module__):
            yield from self.of(kind, path)
        if dataclasses.is_dataclass(value) or _is_pure_python(kind):
            yield from self._each(_attributes(value), path)
        else:
            yield self._pickled(value, path)

    @functools.cached_property
    def _serialisers(self) -> list[tuple[tuple[type, ...], Callable[[Any, str], Iterator[bytes]]]]:
        """Pairs of types and their serialisers, of which the first match is used."""
        return [
            ((torch.Tensor, np.ndarray), self._array),
            ((types.ModuleType,), lambda value, _: iter([value.__name__.encode()])),
            ((types.MethodType,), self._method),
            ((types.FunctionType,), self._function),
            ((types.CodeType,), self._code),
            ((functools.partial,), self._partial),
            ((enum.Enum,), lambda value, _: iter([value.name.encode()])),
            ((type,), self._type),
            ((Mapping,), self._mapping),
            ((tuple, list), self._sequence),
            ((set, frozenset), self._set),
            ((nn.Module,), self._module),
            ((weakref.ref,), lambda _value, _path: iter([])),
            (_COMPILED, lambda value, _: iter([value.__qualname__.encode()])),
        ]

    def _array(self, value: torch.Tensor | np.ndarray, path: str) -> Iterator[bytes]:
        array = value
        if isinstance(value, torch.Tensor):
            array = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        assert isinstance(array, np.ndarray)
        yield self._pickled(array, path) if array.dtype == object else array.tobytes()

    def _method(self, method: types.MethodType, path: str) -> Iterator[bytes]:
        return self._each({"function": method.__func__, "self": method.__self__}, path)

    def _partial(self, value: functools.partial[Any], path: str) -> Iterator[bytes]:
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        return self._each(parts, path)

    def _mapping(self, values: Mapping[Any, Any], path: str) -> Iterator[bytes]:
        for key, item in values.items():
            yield from self.of(key, path)
            yield from self.of(item, f"{path}[{key!r}]")

    def _sequence(self, values: Sequence[Any], path: str) -> Iterator[bytes]:
        for index, item in enumerate(values):
            yield from self.of(item, f"{path}[{index}]")

    def _set(self, values: frozenset[Any], path: str) -> Iterator[bytes]:
        yield b"".join(sorted(_digest(self._part, item) for item in values))

    def _each(self, values: Mapping[str, Any], path: str) -> Iterator[bytes]:
        for name, value in values.items():
            yield name.encode()
            yield from self.of(value, f"{path}.{name}")

    def _function(self, function: types.FunctionType, path: str) -> Iterator[bytes]:
        yield function.__qualname__.encode()
        if _is_library(function.__module__):
            return
        yield from self.of(function.__code__, path)
        defaults = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
        yield from self._each(defaults, path)
        yield from self._each(_closed_over(function), path)
        yield from self._each(_named_globals(function), path)

    def _code(self, code: types.CodeType, path: str) -> Iterator[bytes]:
        yield code.co_code
        yield " ".join((*code.co_names, *code.co_varnames)).encode()
        yield from self.of(tuple(c for c in code.co_consts if c is not ...), path)

    def _type(self, kind: type, path: str) -> Iterator[bytes]:
        yield _name_of(kind).encode()
        for base in kind.__mro__:
            if _is_library(base.__module__):
                yield base.__qualname__.encode()
                continue
            for name, member in vars(base).items():
                inner = _unwrapped(member)
                is_specific = not name.startswith(("__", "_abc_")) or name == "__init__"
                if isinstance(inner, types.FunctionType) or (is_specific and not _is_slot(inner)):
                    yield name.encode()
                    yield from self.of(inner, f"{path}.{name}")

    def _module(self, module: nn.Module, path: str) -> Iterator[bytes]:
        """Yield a module's class, weights and other attributes, such as a temperature."""
        yield from self.of(type(module), path)
        yield from weights_parts(module)
        yield from self._each(_unsaved_buffers(module), path)
        for name, inner in module.named_modules():
            if inner is not module and not _is_library(type(inner).__module__):
                yield from self.of(type(inner), f"{path}.{name}")
            given = {
                key: value for key, value in vars(inner).items() if key not in _OF_EVERY_MODULE
            }
            yield from self._each(given, f"{path}.{name}")

    def _pickled(self, value: Any, path: str) -> bytes:
        """Return the pickle of a value that has no other serialiser.

        Raises:
            RequestError: the value can't be pickled.
        """
        try:
            return pickle.dumps(value)
        except Exception:
            raise RequestError(
                f"{path} of the {self._part} of your own is of type {type(value).__name__}, of "
                "which nothing tells whether it is the same when a run goes on: give it as a plain "
                "value, or make it inside"
            ) from None


def _unwrapped(member: Any) -> Any:
    """Return the function inside a property, a static or class method, or a wrapper."""
    for name in ("__func__", "fget", "func", "__wrapped__"):
        inner = getattr(member, name, None)
        if inner is not None and not isinstance(member, functools.partial):
            return _unwrapped(inner)
    return member


def _name_of(kind: type) -> str:
    """Return the full name of a class; for ours without its module, which may change."""
    top = kind.__module__.split(".")[0]
    return f"{top if top == 'vitral' else kind.__module__}.{kind.__qualname__}"


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, including those in slots."""
    found: dict[str, Any] = {}
    for base in type(value).__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType) and hasattr(value, name):
                found[name] = getattr(value, name)
    return found | getattr(value, "__dict__", {})


def _unsaved_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the non-persistent buffers."""
    saved = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def _is_slot(member: Any) -> bool:
    return isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType)


def _closed_over(function: types.FunctionType) -> dict[str, Any]:
    """Return the closure variables of a function, without those not set yet."""
    found = {}
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        with contextlib.suppress(ValueError):
            found[name] = cell.cell_contents
    return found


def _named_globals(function: types.FunctionType) -> dict[str, Any]:
    """Return the globals that a function, or one nested in it, reads."""
    names, attributes, imported = set[str](), set[str](), dict[str, types.ModuleType]()
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        waiting += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        names |= {str(i.argval) for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
        attributes |= set(code.co_names)
        imported |= _imported_inside(code, package=function.__globals__.get("__package__"))
    known = function.__globals__
    found = {name: known[name] for name in sorted(names) if name in known}
    found |= imported
    modules = {
        name: module
        for name, module in found.items()
        if isinstance(module, types.ModuleType) and not _is_library(module.__name__)
    }
    # Of a user's module, the attributes that the code may read.
    return found | {
        f"{name}.{attribute}": getattr(module, attribute)
        for name, module in modules.items()
        for attribute in sorted(attributes & vars(module).keys())
    }


def _imported_inside(code: types.CodeType, *, package: str | None) -> dict[str, types.ModuleType]:
    """Return the modules that code imports when executed."""
    found = dict[str, types.ModuleType]()
    instructions = list(dis.get_instructions(code))
    for index, instruction in enumerate(instructions):
        if instruction.opname == "IMPORT_NAME":
            dots = "." * instructions[index - 2].argval  # pushed before what is imported from it
            with contextlib.suppress(ImportError):
                name = importlib.util.resolve_name(dots + instruction.argval, package)
                if not _is_library(name):
                    found[name] = importlib.import_module(name)
    return found


def _is_library(module: str | None) -> bool:
    """Return whether a module belongs to an installed package, which its version identifies."""
    top = (module or "builtins").split(".")[0]
    if top == "__main__":
        return False
    if top in ("vitral", *sys.stdlib_module_names):
        return True
    if top in sys.modules:
        file = getattr(sys.modules[top], "__file__", None) or ""
    else:
        spec = importlib.util.find_spec(top)
        file = (spec and spec.origin) or ""
    return any(Path(file).is_relative_to(sysconfig.get_path(kind)) for kind in _INSTALLED)


def _is_pure_python(kind: type) -> bool:
    """Return whether attributes hold an object's whole state: no base of its class is compiled."""
    bases = [base for base in kind.__mro__ if base not in _WITHOUT_STATE]
    return all(not _is_library(base.__module__) for base in bases)
