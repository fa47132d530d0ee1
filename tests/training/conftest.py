import os
from pathlib import Path

import pytest
from support.runs import write_patterns

# Tiny products are faster on one thread; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of four easy classes with splits."""
    return write_patterns(tmp_path_factory.mktemp("patterns") / "patterns.npz")
