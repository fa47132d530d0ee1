"""Few-shot scores during training, on tasks that are opened once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vitral.config.run import RunConfig
from vitral.data.datasets.names import is_published
from vitral.evaluate.frozen.controls import model_view
from vitral.evaluate.frozen.fewshot import (
    NUM_SEEDS,
    Draw,
    draw_all,
    fewshot_preprocessing,
    score_draws,
)
from vitral.evaluate.frozen.task import FrozenModel, FrozenTask, open_task
from vitral.evaluate.ridge import L2
from vitral.models.model import Model
from vitral.training.context import fewshot_sources


@dataclass(frozen=True)
class FewshotScorer:
    """Tasks with their drawn support sets."""

    tasks: tuple[tuple[FrozenTask, list[Draw]], ...]
    config: RunConfig
    device: torch.device

    def scores(self, model: torch.nn.Module) -> dict[str, float]:
        """Return the accuracy of a model by `DATA/5-shot`, as the mean over seeds.

        Raises:
            DataError: an image of a support set, or every test image, can't be read.
            ModelFileError: the features are not finite.
        """
        assert isinstance(model, Model)
        frozen = FrozenModel(
            model,
            path="",
            device=self.device,
            batch_size=self.config.evaluation.batch_size,
            workers=self.config.data.workers,
        )
        view = model_view(frozen, fewshot_preprocessing(self.config.preprocessing))
        found: dict[str, list[float]] = {}
        for task, draws in self.tasks:
            for scored in score_draws(view, task, draws, l2=L2)[0]:
                found.setdefault(f"{task.name}/{scored.shots}-shot", []).append(scored.accuracy)
        return {name: float(np.mean(values)) for name, values in found.items()}


def open_fewshot(
    config: RunConfig, *, device: torch.device, log: Callable[[str], None]
) -> FewshotScorer:
    """Open the tasks of `evaluation.fewshot` and draw their support sets.

    Args:
        config: of the run.
        device: of the model.
        log: receives notes about the data.

    Raises:
        RequestError: a source is not there, or has too few images for `evaluation.fewshot_shots`.
        DataError: its contents can't be used.
    """
    tasks = []
    for source in fewshot_sources(config.evaluation.fewshot):
        task = open_task(
            source,
            channels=config.preprocessing.channels,
            directory=config.data.directory if is_published(source) else None,
        )
        for note in task.notes:
            log(f"few-shot on {task.name}: {note}")
        shots = config.evaluation.fewshot_shots
        tasks.append((task, draw_all(task, shots=shots, num_seeds=NUM_SEEDS, sweep=False)))
    return FewshotScorer(tuple(tasks), config, device)
