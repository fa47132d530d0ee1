"""Small models without a zero among their weights, run on one thread."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from support.small_models import build_small

from vitral.models.vit import ViT


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run the small models on one thread: two wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_model() -> Callable[..., ViT]:
    """Build a small ViT of three blocks whose every weight counts; keywords are of its config."""

    def build(**fields: object) -> ViT:
        model = build_small("ViT", **{"depth": 3} | fields)
        assert isinstance(model, ViT)
        return model

    return build


@pytest.fixture
def small_images() -> torch.Tensor:
    return torch.rand((2, 3, 24, 32), generator=torch.Generator().manual_seed(12)) * 2 - 1


@pytest.fixture
def nchw() -> Callable[[np.ndarray], torch.Tensor]:
    return lambda images: torch.from_numpy(images).permute(0, 3, 1, 2)
