from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vitral.data.dev_split import hold_out
from vitral.data.images import ImageData, open_images
from vitral.evaluate.features import extract_features
from vitral.models.model import Model
from vitral.train.site import training_site
from vitral.transfer import probe_first as module
from vitral.transfer.probe_first import probe_first
from vitral.transfer.start import open_source, starting_model

Write = Callable[..., Path]


@pytest.fixture
def images(write_task: Write) -> ImageData:
    return hold_out(open_images(write_task(train=200)), share=0.2)


@pytest.fixture
def start(pretrained: Path, images: ImageData) -> Model:
    return starting_model(open_source(pretrained), images.classes)


def probed(model: Model, images: ImageData) -> float | None:
    with training_site("cpu") as site:
        return probe_first(model, images, site)


def test_the_head_gives_the_score_that_is_told(
    start: Model, images: ImageData, capsys: pytest.CaptureFixture[str]
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
    told = f"probe: {100 * accuracy:.1f} % of {count} validation images, with frozen features"
    assert told in capsys.readouterr().err


def test_a_first_number_comes_early_and_changes_nothing(
    pretrained: Path, images: ImageData, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    heads = []
    for seconds in (1e9, 0.0):
        monkeypatch.setattr(module, "FIRST_AFTER_SECONDS", seconds)
        monkeypatch.setattr(module, "LEAST_IN_CHUNK", 20)
        model = starting_model(open_source(pretrained), images.classes)
        probed(model, images)
        heads.append(model.head.weight.detach().numpy())
        said = capsys.readouterr().err
        assert said.count("first probe, of") == (seconds == 0)
    np.testing.assert_array_equal(*heads)


def test_validation_images_beyond_the_first_count_too(
    start: Model, images: ImageData, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "MOST_FIRST_VALIDATION", 10)
    probed(start, images)
    assert f"of {len(images.splits['validation'])} validation images" in capsys.readouterr().err


def test_without_every_class_the_head_stays_zero(start: Model, images: ImageData) -> None:
    train = images.splits["train"]
    images.splits["train"] = train.select(np.flatnonzero(train.labels != 1))
    assert probed(start, images) is None
    assert not start.head.weight.any()
