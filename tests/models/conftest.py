"""Small models without a zero among their weights, and the original authors' numbers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vitral.models.build import create_model
from vitral.models.vit import ViT

Arrays = dict[str, np.ndarray]
SMALL = {
    "image_size": (24, 32), "patch_size": 8, "num_classes": 5, "embed_dim": 16, "depth": 3,
    "num_heads": 2, "mlp_dim": 24,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run the small models on one thread: two wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small_model() -> Callable[..., ViT]:
    """Build a model whose every weight counts, in evaluation mode; keywords differ from SMALL."""

    def build(**fields: object) -> ViT:
        torch.manual_seed(10)
        model = create_model("ViT-Mi/8", **SMALL | fields)
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

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
