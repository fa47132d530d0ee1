"""Features of examples: what they are, and what can't be used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.extraction import extract, opened
from support.runs import pattern_images
from support.small_models import FAMILIES, build_small, small_batch
from torch import nn

from vitral.data.examples import Examples
from vitral.data.sources.arrays import ArrayStore
from vitral.errors import DataError, ModelFileError, RequestError
from vitral.models.model import Model


def some_examples(count: int = 13) -> Examples:
    images, labels = pattern_images(count)
    return Examples(ArrayStore(images, path="memory"), np.arange(count), labels)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_features_are_what_a_plain_loop_gives(model: Model, batch_size: int) -> None:
    model.train()
    frozen = model.blocks[0].eval()
    examples = some_examples()
    reported: list[tuple[int, int]] = []
    found = extract(
        model, examples, batch_size=batch_size, report_progress=lambda *args: reported.append(args)
    )
    assert (model.training, frozen.training, model.head.training) == (True, False, True)
    pixels = np.stack([examples.read(index) for index in range(13)]).astype(np.float32)
    images = torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = model.eval().features(images).numpy()
    np.testing.assert_allclose(found.values, wanted, atol=1e-5)
    assert (found.values.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert found.indices.tolist() == list(range(13))
    assert found.labels.tolist() == examples.labels.tolist()
    assert reported[-1] == (13, 13)
    assert len(reported) == -(-13 // batch_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_its_head_reads(family: str) -> None:
    model = build_small(family)
    pixels = (small_batch(model, count=3).clamp(-1, 1) * 127.5 + 127.5).byte()
    store = ArrayStore(pixels.permute(0, 2, 3, 1).contiguous().numpy(), path="memory")
    found = extract(model, Examples(store, np.arange(3), np.zeros(3, np.int64)))
    wanted = model(pixels / 127.5 - 1).detach()
    logits = model.classify(torch.from_numpy(found.values)).detach()
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
    assert found.values.shape[1] == model.config.feature_dim


def test_no_image_that_can_be_read_is_an_error_of_the_data(model: Model, photos: Path) -> None:
    examples = opened(photos)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image could be read: a/0.png: not an image: see"):
        extract(model, examples)
    with pytest.raises(DataError, match="there are no examples to extract features of"):
        extract(model, examples.select(np.arange(0)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_name_the_first_image(
    model: Model, tmp_path: Path, value: float
) -> None:
    examples = some_examples().select(np.array([9, 4, 2]))
    whole = model.features

    def broken(images: torch.Tensor) -> torch.Tensor:
        features = whole(images)
        features[1:, 3] = value
        return features

    model.features = broken  # type: ignore[method-assign]
    with pytest.raises(ModelFileError, match=f"the features of 4 are not finite but {value}:"):
        extract(model, examples, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_mistake_of_the_caller_is_said(model: Model) -> None:
    with pytest.raises(RequestError, match="Linear has no features that a head reads: give a mod"):
        extract(nn.Linear(2, 2), some_examples())
    with pytest.raises(RequestError, match="batch_size=0 must be 1 or more"):
        extract(model, some_examples(), batch_size=0)
