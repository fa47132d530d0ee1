"""Small models without a zero among their weights, and the original authors' numbers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import build_small

from vitral.models.vit import ViT

Arrays = dict[str, np.ndarray]


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
def reference(shared: Path) -> Callable[[str], Arrays]:
    """Read arrays of the original authors' code."""

    def read(name: str) -> Arrays:
        with np.load(shared / "reference" / f"{name}.npz", allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return read


@pytest.fixture
def nchw() -> Callable[[np.ndarray], torch.Tensor]:
    return lambda images: torch.from_numpy(images).permute(0, 3, 1, 2)
