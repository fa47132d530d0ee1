from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vitral.data.dataset import ImageDataset, open_dataset
from vitral.data.splits import hold_out
from vitral.evaluate.features import extract_features
from vitral.evaluate.probe import linear_probe
from vitral.models.model import Model
from vitral.training.context import train_context
from vitral.transfer import probe_first as module
from vitral.transfer.pretrained import open_source, starting_model
from vitral.transfer.probe_first import probe_first, probe_seen_classes

Write = Callable[..., Path]


@pytest.fixture
def images(write_task: Write) -> ImageDataset:
    return hold_out(open_dataset(write_task(train=200)), share=0.2)


@pytest.fixture
def start(pretrained: Path, images: ImageDataset) -> Model:
    return starting_model(open_source(pretrained), images.classes)


def probed(model: Model, images: ImageDataset) -> float | None:
    with train_context("cpu") as context:
        return probe_first(model, images, context)


def test_the_head_gives_the_score_that_is_told(
    start: Model, images: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = probed(start, images)
    assert accuracy is not None and accuracy > 0.8
    features = extract_features(
        start,
        images.splits["validation"],
        preprocessing=start.preprocessing,
        device=torch.device("cpu"),
    )
    with torch.no_grad():
        answers = start.classify(torch.from_numpy(features.values)).argmax(dim=1).numpy()
    assert (answers == features.labels).mean() == pytest.approx(accuracy)
    count = len(images.splits["validation"])
    line = f"probe: {100 * accuracy:.1f} % of {count} validation images, with frozen features"
    assert line in capsys.readouterr().err


def test_a_first_number_comes_early_and_changes_nothing(
    pretrained: Path, images: ImageDataset, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    heads = []
    for seconds in (1e9, 0.0):
        monkeypatch.setattr(module, "FIRST_AFTER_SECONDS", seconds)
        monkeypatch.setattr(module, "LEAST_IN_CHUNK", 20)
        model = starting_model(open_source(pretrained), images.classes)
        probed(model, images)
        heads.append(model.head.weight.detach().numpy())
        printed = capsys.readouterr().err
        assert printed.count("first probe, of") == (seconds == 0)
    np.testing.assert_array_equal(*heads)


def test_validation_images_beyond_the_first_count_too(
    start: Model, images: ImageDataset, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "MOST_FIRST_VALIDATION", 10)
    probed(start, images)
    assert f"of {len(images.splits['validation'])} validation images" in capsys.readouterr().err


def test_without_every_class_the_head_stays_zero(start: Model, images: ImageDataset) -> None:
    train = images.splits["train"]
    images.splits["train"] = train.select(np.flatnonzero(train.labels != 1))
    assert probed(start, images) is None
    assert not start.head.weight.any()


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
