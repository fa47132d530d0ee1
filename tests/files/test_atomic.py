import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitral.files import atomic


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("new")


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@given(old=st.binary(max_size=50), new=st.binary(max_size=50))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_write_bytes_replaces_the_contents_and_leaves_nothing_beside(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(old)
    atomic.write_bytes(path, new)
    assert path.read_bytes() == new
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("write", "content"),
    [
        (atomic.write_bytes, "text"),
        (atomic.write_text, "half a letter: \ud800"),
        (atomic.write_json, {"value": object()}),
    ],
)
def test_a_write_that_fails_leaves_the_old_contents_and_nothing_beside(
    tmp_path: Path, write: Callable[[Path, object], None], content: object
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises((TypeError, ValueError)):
        write(path, content)
    assert contents(tmp_path) == {"file": "old"}


def test_two_threads_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {letter * 10_000 for letter in "ab"}

    def write(text: str) -> None:
        for _ in range(30):
            atomic.write_text(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, texts))


def test_a_file_that_can_t_get_its_name_is_not_left_aside(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a.txt").write_text("old")
    with pytest.raises(OSError, match="taken"):
        atomic.write_bytes(tmp_path / "taken", b"new")
    assert contents(tmp_path) == {"taken/a.txt": "old"}


def test_json_is_readable_by_people_and_machines(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "file.json", {"class": "käuzchen", "count": 3})
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert "käuzchen" in text
    assert json.loads(text) == {"class": "käuzchen", "count": 3}
    assert text.endswith("}\n")


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_folder_appears_whole_under_its_name(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "there" / "folder"
    fill_old = {True: fill, False: Path.rmdir}[exists]
    path.mkdir(parents=True)
    fill_old(path)
    with atomic.new_folder(path) as folder:
        assert folder.parent == path.parent
        assert path.exists() == exists
        (folder / "b.txt").write_text("newer")
    assert contents(tmp_path) == {"there/folder/b.txt": "newer"}


def refuse(folder: Path) -> None:
    assert contents(folder) == {"sub/a.txt": "new"}
    raise ValueError("not good enough")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_inside_leaves_the_old_folder_and_nothing_beside(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with pytest.raises(error), atomic.new_folder(path) as folder:
        fill(folder)
        raise error
    assert contents(tmp_path) == {"folder/old.txt": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_not_verified_never_gets_its_name(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with (
        pytest.raises(ValueError, match="not good enough"),
        atomic.new_folder(path, verify=refuse) as folder,
    ):
        fill(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_when_the_same_one_begins_again(
    tmp_path: Path,
) -> None:
    aside = tmp_path / f"{atomic.ASIDE_PREFIX}{os.getpid()}-folder"
    aside.mkdir()
    (aside / "half.txt").write_text("half")
    with atomic.new_folder(tmp_path / "folder") as folder:
        fill(folder)
    assert contents(tmp_path) == {"folder/sub/a.txt": "new"}


def test_leftovers_of_any_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{atomic.ASIDE_PREFIX}1-folder").mkdir()
    fill(tmp_path / f"{atomic.ASIDE_PREFIX}1-folder")
    (tmp_path / f"{atomic.ASIDE_PREFIX}2-file").write_text("half")
    (tmp_path / ".hidden").write_text("the user's")
    fill(tmp_path)
    atomic.remove_leftovers(tmp_path)
    assert contents(tmp_path) == {".hidden": "the user's", "sub/a.txt": "new"}
