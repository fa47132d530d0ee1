import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitral.errors import ModelFileError
from vitral.files.manifest import MANIFEST_NAME, check_manifest, sha256, write_manifest

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


@given(place=st.integers(0, 199), bit=st.integers(0, 7))
@everywhere
def test_any_flipped_bit_is_found(folder: Path, place: int, bit: int) -> None:
    content = bytearray(FILES["state.bin"])
    content[place] ^= 1 << bit
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


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@everywhere
def test_a_flipped_bit_in_the_manifest_itself_is_found_or_harmless(
    folder: Path, place: float, bit: int
) -> None:
    path = folder / MANIFEST_NAME
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        check_manifest(folder)
    except ModelFileError:
        pass
    finally:
        path.write_bytes(content)
