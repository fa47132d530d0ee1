"""Model and data in, rows and arrays out.

Names are loaded when they are first used, so that commands which do not score load nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitral.evaluate.frozen import open_model, open_task
    from vitral.evaluate.frozen_fewshot import score_fewshot
    from vitral.evaluate.frozen_knn import score_knn
    from vitral.evaluate.frozen_probe import score_probe
    from vitral.evaluate.least_squares import fewshot, fewshot_sweep
    from vitral.evaluate.neighbours import choose_knn, knn
    from vitral.evaluate.probe import linear_probe
    from vitral.evaluate.support import draw_support, mean_interval

_PLACES = {
    "choose_knn": "neighbours",
    "draw_support": "support",
    "fewshot": "least_squares",
    "fewshot_sweep": "least_squares",
    "knn": "neighbours",
    "linear_probe": "probe",
    "mean_interval": "support",
    "open_model": "frozen",
    "open_task": "frozen",
    "score_fewshot": "frozen_fewshot",
    "score_knn": "frozen_knn",
    "score_probe": "frozen_probe",
}
__all__ = [
    "choose_knn",
    "draw_support",
    "fewshot",
    "fewshot_sweep",
    "knn",
    "linear_probe",
    "mean_interval",
    "open_model",
    "open_task",
    "score_fewshot",
    "score_knn",
    "score_probe",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"vitral.evaluate.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'vitral.evaluate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
