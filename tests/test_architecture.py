"""The house is as its documents say: floors, rooms, public names, files; and it stays small."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import vitral

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITTEN = script("write_docs")


@pytest.mark.parametrize("path", [WRITTEN.API_PATH, WRITTEN.FLOORS_PATH], ids=str)
def test_what_docs_draw_from_the_code_is_up_to_date(path: Path) -> None:
    wanted = WRITTEN.api_page() if path == WRITTEN.API_PATH else WRITTEN.floors_picture()
    assert (ROOT / path).read_text(encoding="utf-8") == wanted, "run `make docs`"


def test_every_public_name_has_a_docstring() -> None:
    assert not re.search(r"\n```\n\n(?=###? )", WRITTEN.api_page())


def test_every_room_stands_on_a_floor_and_has_its_sentence() -> None:
    rooms = {path.stem for path in (ROOT / "vitral").iterdir() if not path.name.startswith("_")}
    rooms -= {"py"}  # py.typed
    contract = {room for floor in WRITTEN.floors() for room in floor}
    assert contract == rooms
    table = re.findall(r"^\| (`.*?) \|", ARCHITECTURE, re.MULTILINE)
    assert {room for row in table for room in re.findall(r"`(\w+)`", row)} == rooms


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+/\w+\.py|\w+/)", ARCHITECTURE))
    named |= set(re.findall(r"(tests/[\w/]+(?:\.py|/))", ARCHITECTURE))
    for name in named - {"model/"}:  # of a run folder
        if "NEW" not in name:
            assert (ROOT / "vitral" / name).exists() or (ROOT / name).exists(), name


def test_only_runtime_and_files_look_at_what_linux_alone_has() -> None:
    """Beside the calls that the linter bans elsewhere (`banned-api` in pyproject.toml)."""
    found = [
        path.relative_to(ROOT)
        for path in (ROOT / "vitral").rglob("*.py")
        if path.parent.name not in ("runtime", "files") and "/proc/" in path.read_text("utf-8")
    ]
    assert not found, found


def test_the_package_is_typed_and_the_wheel_has_the_mark() -> None:
    assert (ROOT / "vitral/py.typed").exists()
    assert SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["vitral"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == vitral.__version__


def test_hooks_and_ci_have_one_ruff() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"ruff=={hooks['repos'][0]['rev'].removeprefix('v')}\n" in constraints


def test_quick_takes_the_nearest_tests_first() -> None:
    tests = script("quick").choose_tests(["vitral/models/vit.py", "docs/log.md"])
    assert tests[0] == "tests/models/test_vit.py"
    assert "tests/training/test_trajectory.py" in tests
    assert tests.index("tests/models/test_build.py") > tests.index("tests/models/test_vit.py")
    for test in (
        "tests/test_docs.py",
        "tests/data/test_order.py",
        "tests/models/weights/test_load.py",
    ):
        assert script("quick").choose_tests([test])[0] == test
