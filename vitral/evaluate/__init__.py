"""Evaluation: model and data in, rows and arrays out.

Names are imported on first use, so that commands that do not score load nothing.
"""

from typing import TYPE_CHECKING

from vitral._lazy import lazy_names

if TYPE_CHECKING:
    from vitral.evaluate.frozen.fewshot import score_fewshot
    from vitral.evaluate.frozen.probes import score_knn, score_probe
    from vitral.evaluate.frozen.task import open_model, open_task
    from vitral.evaluate.neighbours import choose_knn, knn
    from vitral.evaluate.probe import linear_probe
    from vitral.evaluate.ridge import draw_support, fewshot, fewshot_sweep
    from vitral.statistics import mean_interval

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
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "choose_knn": "vitral.evaluate.neighbours",
        "draw_support": "vitral.evaluate.ridge",
        "fewshot": "vitral.evaluate.ridge",
        "fewshot_sweep": "vitral.evaluate.ridge",
        "knn": "vitral.evaluate.neighbours",
        "linear_probe": "vitral.evaluate.probe",
        "mean_interval": "vitral.statistics",
        "open_model": "vitral.evaluate.frozen.task",
        "open_task": "vitral.evaluate.frozen.task",
        "score_fewshot": "vitral.evaluate.frozen.fewshot",
        "score_knn": "vitral.evaluate.frozen.probes",
        "score_probe": "vitral.evaluate.frozen.probes",
    },
)
