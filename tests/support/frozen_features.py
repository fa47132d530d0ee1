"""Features of a few overlapping classes, for scores of frozen features."""

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def overlapping_classes(
    *, train: int = 60, test: int = 40, width: int = 6, classes: int = 3, seed: int = 0
) -> Arrays:
    """Return train features (N, D) and labels (N,), test features (M, D) and labels (M,)."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, width))
    labels = np.arange(train + test) % classes
    features = centres[labels] + generator.normal(size=(train + test, width))
    features = features * generator.uniform(0.1, 10, width) + generator.normal(size=width)
    return features[:train], labels[:train], features[train:], labels[train:]
