"""Vitral: the Vision Transformer as working software.

Names are imported when they are first used, so that `import vitral` and `vitral --help` cost
nothing.
"""

from typing import TYPE_CHECKING

from vitral._lazy import lazy_names
from vitral.version import __version__

if TYPE_CHECKING:
    from vitral.models.build import create_model
    from vitral.models.weights.load import load_model
    from vitral.models.weights.save import save_model
    from vitral.predict.predictor import Predictor
    from vitral.training.train import train

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
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Predictor": "vitral.predict.predictor",
        "create_model": "vitral.models.build",
        "evaluate": "vitral.evaluate",
        "inspection": "vitral.inspection",
        "load_model": "vitral.models.weights.load",
        "save_model": "vitral.models.weights.save",
        "train": "vitral.training.train",
    },
)
