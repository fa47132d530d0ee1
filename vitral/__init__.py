"""Vitral: the Vision Transformer as working software.

Names are loaded when they are first used, so that `import vitral` and `vitral --help` cost nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vitral.version import __version__

if TYPE_CHECKING:
    from vitral import evaluate, inspection
    from vitral.models.build import create_model
    from vitral.models.weights.load import load_model
    from vitral.models.weights.save import save_model
    from vitral.predict.predictor import Predictor
    from vitral.train.run import train

_PLACES = {
    "Predictor": "vitral.predict.predictor",
    "create_model": "vitral.models.build",
    "load_model": "vitral.models.weights.load",
    "save_model": "vitral.models.weights.save",
}
_PACKAGES = ("evaluate", "inspection", "train")
"""`train` is a package that can be called."""
__all__ = [
    "Predictor",
    "__version__",
    "create_model",
    "evaluate",
    "inspection",
    "load_model",
    "save_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"vitral.{name}")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'vitral' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
