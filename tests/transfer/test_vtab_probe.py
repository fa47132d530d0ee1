"""The probe of a few hundred images, which leave classes out."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vitral.evaluate.probe import linear_probe
from vitral.transfer.vtab_probe import probe_seen_classes

CENTRES = np.random.default_rng(3).normal(size=(6, 5)) * 1.5


def draw(counts, *, seed):
    """Return noisy points (N, 5) float32 about the centres, as many of each class as stated."""
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 5))
    return (CENTRES[labels] + noise).astype(np.float32), labels


def test_with_every_class_it_is_the_linear_probe():
    train, validation, test = (draw([12] * 6, seed=seed) for seed in range(3))
    probe = linear_probe(*train, *test, num_classes=6, validation=validation)
    right, l2 = probe_seen_classes(train, validation, test)
    assert (right / len(test[1]), l2) == (pytest.approx(probe.accuracy), probe.l2)


# Classes 0 and 4 have no training image; class 4 none in validation either.
@pytest.mark.parametrize("held", [[5, 5, 5, 5, 0, 5], [0, 5, 5, 5, 0, 5]])
def test_without_some_classes_it_is_as_scikit_learn_has_it(held):
    train, validation = draw([0, 15, 15, 15, 0, 15], seed=0), draw(held, seed=1)
    test = draw([10] * 6, seed=2)
    right, l2 = probe_seen_classes(train, validation, test)
    features, labels = (np.concatenate(parts) for parts in zip(train, validation, strict=True))
    scaler = StandardScaler().fit(features)
    other = LogisticRegression(C=1 / l2, max_iter=5000, tol=1e-8)
    other.fit(scaler.transform(features), labels)
    assert right == (other.predict(scaler.transform(test[0])) == test[1]).sum()
    assert right <= 10 * len(set(labels))
