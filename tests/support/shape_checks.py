"""Checks, while tests run, of the shapes that the annotations of `vitral.models` state."""

from collections.abc import Iterator

import jaxtyping
import pytest
from jaxtyping import install_import_hook

install_import_hook("vitral.models", "beartype.beartype")


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Let `torch.compile` see the unchecked functions: it can't trace the checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
