"""What happens to a class's probability when a part of the image is blanked."""

import re

import numpy as np
import pytest
import torch
from support.small_models import FAMILIES, build_small, small_batch
from torch import Tensor

from vitral.errors import RequestError
from vitral.inspection import occlusion_sensitivity
from vitral.inspection.occlusion import cells
from vitral.models.model import Model

GRID = (2, 3)


@torch.no_grad()
def watcher(row: int, column: int, **fields: object) -> Model:
    """A model whose logit of class 1 is the brightness of patch (row, column), and of no other."""
    model = build_small("ViT", image_size=(16, 24), **fields)

    def forward(images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 5)
        patch = images[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        logits[:, 1] = patch.mean(dim=(1, 2, 3))
        return logits

    model.forward = forward
    return model


@pytest.mark.parametrize("row", range(2))
@pytest.mark.parametrize("column", range(3))
def test_blanking_a_patch_changes_its_own_cell(row: int, column: int) -> None:
    """On a 2:3 image, so that swapped axes are seen."""
    model = watcher(row, column)
    image = -torch.ones(1, 3, 16, 24)
    image[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    fall = occlusion_sensitivity(model, image, [1])
    assert fall.shape == (1, *GRID)
    assert np.unravel_index(int(fall[0].argmax()), GRID) == (row, column)
    others = fall[0].flatten()[torch.arange(6) != row * 3 + column]
    assert fall[0, row, column] > 0.2
    torch.testing.assert_close(others, torch.zeros(5))


def test_it_is_the_fall_of_the_class_s_probability() -> None:
    model = watcher(1, 2)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    before = model(images).softmax(dim=1)
    blanked = images.clone()
    blanked[:, :, 8:, 16:] = images.mean(dim=(2, 3), keepdim=True)
    wanted = before - model(blanked).softmax(dim=1)
    fall = occlusion_sensitivity(model, images, [1, 4])
    torch.testing.assert_close(fall[:, 1, 2], torch.stack([wanted[0, 1], wanted[1, 4]]))


def test_several_labels_have_their_own_probabilities() -> None:
    model = watcher(0, 0)
    model.output = "sigmoid"
    image = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(
        occlusion_sensitivity(model, image, [3]), torch.zeros(1, *GRID), rtol=0, atol=0
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_change_nothing(family: str) -> None:
    model = build_small(family, image_size=(32, 48))
    images = small_batch(model, count=2)
    whole = occlusion_sensitivity(model, images, [0, 1], cell=8)
    pieces = occlusion_sensitivity(model, images, [0, 1], cell=8, batch_size=5)
    assert whole.shape == (2, 4, 6)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)
    assert whole.abs().max() > 0


def test_the_images_are_left_as_they_are() -> None:
    model = build_small("ViT")
    images = small_batch(model)
    before = images.clone()
    occlusion_sensitivity(model, images, [0, 1])
    torch.testing.assert_close(images, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "size", "grid"),
    [
        ("ViT", (30, 37), (3, 4)),  # what fills no patch is not seen by the model
        ("hybrid", (28, 35), (4, 2)),
        ("BiT", (28, 42), (14, 21)),
        ("BiT", (32, 47), (16, 24)),  # the last ones are cut
        ("BiT", (8, 8), (8, 8)),
    ],
)
def test_parts_are_patches_or_fourteenths(
    family: str, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    model = build_small(family, image_size=size)
    assert occlusion_sensitivity(model, small_batch(model, count=1), [0]).shape == (1, *grid)
    assert cells(model)[1] == grid


def test_parts_of_any_size_reach_the_rim() -> None:
    model = watcher(1, 2)
    image = torch.rand(1, 3, 16, 24)
    fall = occlusion_sensitivity(model, image, [1], cell=(10, 10))
    assert fall.shape == (1, 2, 3)
    assert fall[0, 1, 2] != 0


def test_progress_is_told_to_the_end() -> None:
    model = build_small("ViT")
    calls: list[tuple[int, int]] = []
    occlusion_sensitivity(
        model, small_batch(model), [0, 0], batch_size=10, progress=lambda *args: calls.append(args)
    )
    assert calls == [(10, 24), (20, 24), (24, 24)]


@pytest.mark.parametrize(
    ("asked", "fields", "words"),
    [
        ({"classes": [0, 0]}, {"num_classes": 0}, "small has no head: occlusion follows a class"),
        ({"classes": [0]}, {}, "1 classes for 2 images: give one an image"),
        ({"classes": [0, 5]}, {}, "there is no class 5: the model has 5, from 0 on"),
        ({"classes": [0, 0], "cell": 0}, {}, "cell=0 x 0 pixels does not fit images of 24 x 32"),
        ({"classes": [0, 0], "cell": (8, 40)}, {}, "cell=8 x 40 pixels does not fit images"),
    ],
)
def test_what_can_t_be_blanked_is_told(
    asked: dict[str, object], fields: dict[str, int], words: str
) -> None:
    model = build_small("ViT", **fields)
    with pytest.raises(RequestError, match=re.escape(words)):
        occlusion_sensitivity(model, small_batch(model), **asked)
