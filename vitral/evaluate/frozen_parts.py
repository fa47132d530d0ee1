"""The features of a task's splits, for protocols that learn from all training images."""

from dataclasses import dataclass, replace

import numpy as np

from vitral.evaluate.features import Features
from vitral.evaluate.frozen import FrozenTask
from vitral.evaluate.frozen_controls import View


@dataclass(frozen=True)
class Parts:
    """Features of each split."""

    train: Features
    validation: Features | None
    test: Features

    def shuffled(self, generator: np.random.Generator) -> "Parts":
        """Return the same with the labels to learn from permuted, those of validation too."""
        labels = self.train.labels
        if self.validation is not None:
            labels = np.concatenate([labels, self.validation.labels])
        labels = generator.permutation(labels)
        count = len(self.train.labels)
        validation = self.validation
        if validation is not None:
            validation = replace(validation, labels=labels[count:])
        return Parts(replace(self.train, labels=labels[:count]), validation, self.test)


def extract_parts(view: View, task: FrozenTask) -> Parts:
    """Look at every split that takes part."""
    validation = view(task.validation) if task.validation is not None else None
    return Parts(view(task.train), validation, view(task.test))
