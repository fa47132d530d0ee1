"""Run the tests of what has changed, of what imports that, and a core; within a minute.

    python scripts/quick.py [COMMIT]        without COMMIT: what is not committed

Tests mirror the package: `vitral/models/vit.py` is tested by `tests/models/test_vit.py`. The
nearest come first; when the time is up, what is left is skipped and counted.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
SECONDS = 45
"""For the tests; the last one that has begun is let finish."""
CORE = (
    "tests/test_architecture.py",
    "tests/config/test_names.py",
    "tests/data/test_order.py",
    "tests/models/test_vit.py",
    "tests/evaluate/test_ridge.py",
    "tests/training/test_trajectory.py",
)
"""Fast tests that most mistakes would break: names, order, the model, a score, a short training."""
MAX_DISTANCE = 2
"""Imports from a changed module to those whose tests are run: 1, its importers; 2, theirs."""


def changed_files(commit: str) -> list[str]:
    """Return what differs from a commit, files that are not tracked yet among it."""
    commands = (
        ["git", "diff", "--name-only", "--diff-filter=d", commit],
        ["git", "ls-files", "--others", "--exclude-standard"],
    )
    outputs = (
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for command in commands
    )
    return [line for output in outputs for line in output.splitlines()]


def test_of(module: str) -> str:
    """Return where the test of a module lies, such as `vitral.models.vit`."""
    *packages, name = module.split(".")[1:] or ["__init__"]
    return "/".join(["tests", *packages, f"test_{name}.py"])


def module_of(file: str) -> str | None:
    """Return the module that a file of the package is; None: it is another file."""
    path = Path(file)
    if path.suffix != ".py" or path.parts[0] != "vitral":
        return None
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def choose_tests(files: Iterable[str]) -> list[str]:
    """Return the test files to run, the nearest to what has changed first."""
    files = list(files)
    chosen = [file for file in files if re.fullmatch(r"tests/(.+/)?test_\w+\.py", file)]
    graph = grimp.build_graph("vitral", exclude_type_checking_imports=True)
    layer = {module for file in files if (module := module_of(file))}
    seen = set(layer)
    chosen += map(test_of, sorted(layer))
    chosen += CORE
    for _ in range(MAX_DISTANCE):
        layer = {
            importer
            for module in layer & graph.modules
            for importer in graph.find_modules_that_directly_import(module)
        } - seen
        seen |= layer
        chosen += map(test_of, sorted(layer))
    return [file for file in dict.fromkeys(chosen) if (ROOT / file).exists()]


def main() -> int:
    """Run the chosen tests and return pytest's exit status."""
    tests = choose_tests(changed_files(sys.argv[1] if len(sys.argv) > 1 else "HEAD"))
    print(f"{len(tests)} test files, the nearest first: {', '.join(tests[:8])} ...")
    command = [
        sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal",
        "-m", "not slow and not gpu", f"--seconds={SECONDS}", *tests,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
