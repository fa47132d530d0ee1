"""What all tests share: the folder of reference data, a cache of their own, a small trained run."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

Arrays = dict[str, np.ndarray]
CANDIDATES = ("../shared", "shared")


BEGUN = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seconds", type=float, help="skip what has not begun after so long")
    parser.addoption(
        "--every", type=int, default=1, help="of the slow tests of each file, run one in so many"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take a sample of the slow tests: of each file one in `--every`, and `slow(always=True)`."""
    every, seen = config.getoption("--every"), Counter[Path]()
    left_out = set()
    for item in items:
        if slow := item.get_closest_marker("slow"):
            if seen[item.path] % every and not slow.kwargs.get("always"):
                left_out.add(item)
            seen[item.path] += 1
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    seconds = item.config.getoption("--seconds")
    if seconds is not None and time.monotonic() - BEGUN > seconds:
        pytest.skip(f"the {seconds:g} seconds are up")


def find_shared() -> Path | None:
    stated = os.environ.get("VITRAL_SHARED")
    root = Path(__file__).parent.parent
    places = [Path(stated)] if stated else [root / place for place in CANDIDATES]
    return next((place.resolve() for place in places if (place / "reference").is_dir()), None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the original authors' outputs and real images; absent in a user's clone."""
    folder = find_shared()
    if folder is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the shared reference data is absent: set VITRAL_SHARED")
        pytest.skip("needs the shared reference data: set VITRAL_SHARED to its folder")
    return folder


@pytest.fixture
def reference(shared: Path) -> Callable[[str], Arrays]:
    """Read arrays of the original authors' code."""

    def read(name: str) -> Arrays:
        with np.load(shared / "reference" / f"{name}.npz", allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return read


@pytest.fixture
def results_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of results go where they go unless told otherwise: below the working directory."""
    monkeypatch.delenv("VITRAL_RESULTS")


@pytest.fixture
def with_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end with their report, as they do unless told otherwise."""
    monkeypatch.delenv("VITRAL_REPORT")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the user's cache and results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("VITRAL_RESULTS", str(tmp_path_factory.getbasetemp() / "results.jsonl"))
        patch.setenv("VITRAL_REPORT", "off")  # most of the time of a tiny run
        yield
