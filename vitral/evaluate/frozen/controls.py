"""The features that a protocol scores, and the controls that its score is compared with."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from vitral.config.preprocessing import Preprocessing
from vitral.data.examples import Examples
from vitral.evaluate.arrays import Features
from vitral.evaluate.controls import majority_control, pixel_features
from vitral.evaluate.frozen.task import FrozenModel, FrozenTask
from vitral.models.build import build_model
from vitral.models.model import Model
from vitral.statistics import binomial_tail

View = Callable[[Examples], Features]
"""Maps examples to features: of a model, or those that stand in for them."""
TAIL = 0.001
"""A score is explained by chance if its tail probability is at least this."""
SHUFFLES = 10


def model_view(frozen: FrozenModel, preprocessing: Preprocessing) -> View:
    """Return the view of the model itself."""
    return lambda examples: frozen.features(examples, preprocessing)


def control_views(frozen: FrozenModel, preprocessing: Preprocessing) -> dict[str, View]:
    """Return the views of the controls: small pixels, and the untrained architecture."""
    fresh = frozen.with_model(untrained(frozen.model))
    return {
        "pixels": lambda examples: pixel_features(examples, preprocessing=preprocessing),
        "random_weights": model_view(fresh, preprocessing),
    }


def untrained(model: Model, *, seed: int = 0) -> Model:
    """Return a model of the same config with new weights; the random state is restored."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)  # a GPU's generator is not forked
        return build_model(model.config, preprocessing=model.preprocessing).eval()


def free_controls(task: FrozenTask, labels: np.ndarray) -> dict[str, float]:
    """Return the controls that need no features: the majority class of training, and chance."""
    majority = majority_control(task.train.labels, labels, task.classes)["majority_accuracy"]
    return {"majority": majority, "chance": 1 / len(task.classes)}


def shuffled_control(
    accuracy_of: Callable[[np.random.Generator], float], labels: np.ndarray
) -> tuple[float, str | None]:
    """Score a model fitted to permuted labels, which must be at chance.

    Without a leak, each answer is right at most with the share of its class in the test split.
    However, answers for images of one class may be right or wrong together: for two classes that
    are far apart, all are, or none. So if the score of seed 0 is too good, other seeds are tried,
    and only if all of them are too good, it is reported as a leak.

    Args:
        accuracy_of: permutes training labels with a generator, fits and scores.
        labels: of the test split.

    Returns:
        The accuracy of seed 0, or the mean over all seeds that were tried; and a warning.
    """
    largest = np.bincount(labels).max() / len(labels)
    scores = []
    for seed in range(SHUFFLES):
        scores.append(accuracy_of(np.random.default_rng(seed)))
        if binomial_tail(round(scores[-1] * len(labels)), len(labels), largest) >= TAIL:
            break
    else:
        return float(np.mean(scores)), (
            f"warning: learnt from shuffled labels, the test scores {100 * np.mean(scores):.1f} % "
            f"where {100 * largest:.1f} % is the most that chance gives: something tells the test "
            "labels; the scores can't be trusted"
        )
    return float(np.mean(scores)), None


@dataclass(frozen=True)
class SplitFeatures:
    """Features of each split."""

    train: Features
    validation: Features | None
    test: Features

    def shuffled(self, generator: np.random.Generator) -> "SplitFeatures":
        """Return a copy with the labels of train and validation permuted together."""
        labels = self.train.labels
        if self.validation is not None:
            labels = np.concatenate([labels, self.validation.labels])
        labels = generator.permutation(labels)
        count = len(self.train.labels)
        validation = self.validation
        if validation is not None:
            validation = replace(validation, labels=labels[count:])
        return SplitFeatures(replace(self.train, labels=labels[:count]), validation, self.test)


def extract_parts(view: View, task: FrozenTask) -> SplitFeatures:
    """Compute the features of all splits of the task."""
    validation = view(task.validation) if task.validation is not None else None
    return SplitFeatures(view(task.train), validation, view(task.test))
