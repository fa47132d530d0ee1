import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitral.errors import ModelFileError
from vitral.files import atomic
from vitral.files.atomic import MANIFEST_NAME, check_manifest, sha256, write_manifest


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


FILES = {"state.bin": bytes(range(200)), "model/config.json": b'{"a": 1}\n', "empty": b""}
everywhere = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path)
    return tmp_path


def test_a_whole_folder_passes_and_its_manifest_lists_every_file(folder: Path) -> None:
    check_manifest(folder)
    listed = json.loads((folder / MANIFEST_NAME).read_text())["files"]
    assert {name: entry["bytes"] for name, entry in listed.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert listed["state.bin"]["sha256"] == hashlib.sha256(FILES["state.bin"]).hexdigest()


def test_writing_the_manifest_again_changes_nothing(folder: Path) -> None:
    before = (folder / MANIFEST_NAME).read_bytes()
    write_manifest(folder)
    assert (folder / MANIFEST_NAME).read_bytes() == before


@given(content=st.binary(max_size=300))
@everywhere
def test_sha256_is_that_of_the_contents(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@given(position=st.integers(0, 199), bit=st.integers(0, 7))
@everywhere
def test_any_flipped_bit_is_found(folder: Path, position: int, bit: int) -> None:
    content = bytearray(FILES["state.bin"])
    content[position] ^= 1 << bit
    (folder / "state.bin").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"state\.bin is damaged: its SHA-256 is not the one"):
        check_manifest(folder)


@given(length=st.integers(0, 199))
@everywhere
def test_any_truncation_is_found(folder: Path, length: int) -> None:
    (folder / "state.bin").write_bytes(FILES["state.bin"][:length])
    with pytest.raises(ModelFileError, match=f"has {length} bytes, its manifest says 200"):
        check_manifest(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=f"lacks {name}, which its manifest lists"):
        check_manifest(folder)


def test_a_file_that_became_a_folder_is_missing(folder: Path) -> None:
    (folder / "empty").unlink()
    (folder / "empty").mkdir()
    with pytest.raises(ModelFileError, match="lacks empty"):
        check_manifest(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"files": 3}', '{"files": {"empty": {"bytes": 0}}}']
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(ModelFileError, match=r"has no readable manifest\.json"):
        check_manifest(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"has no readable manifest\.json"):
        check_manifest(tmp_path)


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@everywhere
def test_a_flipped_bit_in_the_manifest_itself_is_found_or_harmless(
    folder: Path, position: float, bit: int
) -> None:
    path = folder / MANIFEST_NAME
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[int(position * len(content))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        check_manifest(folder)
    except ModelFileError:
        pass
    finally:
        path.write_bytes(content)


def test_a_file_in_use_is_replaced_later_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a virus scanner holds a file, Windows refuses to replace it."""
    refusals, rename = [PermissionError(), PermissionError()], Path.replace

    def refuse(source: Path, target: Path) -> Path:
        if refusals:
            raise refusals.pop()
        return rename(source, target)

    monkeypatch.setattr(atomic, "IS_WINDOWS", True)
    monkeypatch.setattr(atomic, "RETRY_SECONDS", (0, 0, 0))
    monkeypatch.setattr(Path, "replace", refuse)
    atomic.write_text(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text() == "new" and not refusals
    refusals += [PermissionError()] * 9
    with pytest.raises(PermissionError):
        atomic.write_text(tmp_path / "file.txt", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_folders_are_made_where_only_open_files_can_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "IS_WINDOWS", True)
    with atomic.new_folder(tmp_path / "made") as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "a.txt").write_text("a")
    assert (tmp_path / "made" / "inside" / "a.txt").read_text() == "a"


def test_a_locked_file_is_not_locked_twice(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        atomic.lock(first, wait=False)
        with pytest.raises(OSError, match="unavailable"):
            atomic.lock(second, wait=False)
        first.close()
        atomic.lock(second, wait=False)
