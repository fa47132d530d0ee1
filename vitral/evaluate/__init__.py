"""Model and data in, rows and arrays out.

Names are loaded when they are first used, so that commands which do not score load nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitral.evaluate.least_squares import fewshot, fewshot_sweep

_PLACES = {
    "fewshot": "least_squares",
    "fewshot_sweep": "least_squares",
}
__all__ = [
    "fewshot",
    "fewshot_sweep",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"vitral.evaluate.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'vitral.evaluate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
