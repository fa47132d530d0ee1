"""What of a run no setting tells: the weights of a given module, the code of a given function."""

import hashlib
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

from torch import nn

from vitral.models.fingerprint import weights_parts


def parts_fingerprint(
    model: str | nn.Module | None,
    objective: str | Callable[..., Any],
    metrics: Mapping[str, Callable[..., Any]],
) -> str:
    """Return a hash of the parts that are not named but given; empty when all are named.

    Args:
        model: a module counts with the names, shapes and values of its weights.
        objective: a function counts with its name and code.
        metrics: likewise.
    """
    parts: list[bytes] = []
    if isinstance(model, nn.Module):
        parts += weights_parts(model)
    if not isinstance(objective, str):
        parts.append(_describe_function(objective))
    parts += [name.encode() + _describe_function(metric) for name, metric in metrics.items()]
    if not parts:
        return ""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _describe_function(function: Callable[..., Any]) -> bytes:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    return name.encode() + (_describe_code(code) if isinstance(code, CodeType) else b"")


def _describe_code(code: CodeType) -> bytes:
    constants = [
        _describe_code(value) if isinstance(value, CodeType) else repr(value).encode()
        for value in code.co_consts
    ]
    return b"\0".join([code.co_code, " ".join(code.co_names).encode(), *constants])
