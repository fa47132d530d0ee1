"""Files as they come: truncated, something else, or out to run code."""

import argparse
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitral.errors import ModelFileError
from vitral.models.weights.archive import read_archive, read_json
from vitral.models.weights.load import load_model

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in TENSORS.items()})


def write_safetensors(path: Path) -> None:
    save_file(TENSORS, path, metadata={"format": "pt"})


def write_torch(path: Path) -> None:
    torch.save(TENSORS, path)


def write_old_torch(path: Path) -> None:
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)


WRITERS = {
    "npz": write_npz, "safetensors": write_safetensors, "pth": write_torch, "bin": write_old_torch,
}  # fmt: skip
each_kind = pytest.mark.parametrize("kind", WRITERS)


@each_kind
@pytest.mark.parametrize("suffix", ["", ".npz", ".safetensors", ".pth"])
def test_the_first_bytes_and_not_the_name_tell_what_a_file_is(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    WRITERS[kind](path)
    tree, header = read_archive(path)
    assert {name: value.tolist() for name, value in tree.items()} == {
        name: value.tolist() for name, value in TENSORS.items()
    }
    assert header == ({"format": "pt"} if kind == "safetensors" else {})


@each_kind
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"weights.{kind}"
    WRITERS[kind](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ModelFileError, match=rf"weights\.{kind} (can't be read|is damaged|is a pi)"
    ):
        load_model(path)


@pytest.mark.parametrize("name", ["model.npz", "model.safetensors", "model.pth", "model"])
@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"<!DOCTYPE html>", b"{}", b"version https://git-lfs.github.com/spec/v1\n"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ModelFileError, match=rf"{name} is no model file: it begins like none of \.npz, safetensors"
    ):
        load_model(tmp_path / name)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("notes.txt", "mine")
    with pytest.raises(ModelFileError, match=r"m\.npz is no file of weights: it holds notes\.txt"):
        load_model(tmp_path / "m.npz")


def test_a_file_that_can_t_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="can't be read: (Is a directory|No such file)"):
        read_archive(tmp_path)


class Payload:
    """What would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


def pickle_plainly(tree: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(tree))


@pytest.mark.parametrize("save", [torch.save, pickle_plainly])
def test_a_pickle_that_would_run_code_is_refused_without_running_it(
    tmp_path: Path, save: Callable[[object, Path], None]
) -> None:
    sprung = tmp_path / "sprung"
    save({"model": {"w": torch.zeros(1)}, "hook": Payload(sprung)}, tmp_path / "m.pth")
    with pytest.raises(ModelFileError, match="would have to run code to be read") as caught:
        load_model(tmp_path / "m.pth")
    assert "convert it once" in str(caught.value)
    assert "safetensors.torch.save_file(torch.load(path, weights_only=False)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not sprung.exists()


def test_the_payload_of_that_test_does_run_where_code_is_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_an_npz_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "m.npz", w=np.array([Payload(sprung)], dtype=object))
    with pytest.raises(ModelFileError, match=r"m\.npz can't be read as \.npz: Object arrays"):
        load_model(tmp_path / "m.npz")
    assert not sprung.exists()


def test_the_arguments_of_a_training_script_are_harmless(tmp_path: Path) -> None:
    settings = argparse.Namespace(lr=1e-3, model="deit", inner=argparse.Namespace(depth=3))
    torch.save({"model": TENSORS, "args": settings, "epoch": 3}, tmp_path / "m.pth")
    tree, _ = read_archive(tmp_path / "m.pth")
    assert torch.equal(tree["model"]["a.weight"], TENSORS["a.weight"])
    with torch.serialization.safe_globals([]):
        assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("value", "kind"), [(torch.zeros(3), "Tensor"), ([torch.zeros(3)], "list"), (3, "int")]
)
def test_what_is_no_table_of_tensors_is_refused(tmp_path: Path, value: object, kind: str) -> None:
    torch.save(value, tmp_path / "m.pth")
    with pytest.raises(
        ModelFileError, match=f"m.pth holds a {kind}, not named tensors: save a state dict"
    ):
        load_model(tmp_path / "m.pth")


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.zeros(2, dtype="datetime64[s]")])
def test_an_array_of_no_numbers_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "m.npz", cls=array)
    with pytest.raises(ModelFileError, match="m.npz: tensor cls is of type .*, not of numbers"):
        load_model(tmp_path / "m.npz")


def test_a_void_of_two_bytes_is_bfloat16(tmp_path: Path) -> None:
    tensor = torch.tensor([1.5, -3.0, 1e30]).bfloat16()
    np.savez(tmp_path / "m.npz", w=tensor.view(torch.int16).numpy().view("V2"))
    tree, _ = read_archive(tmp_path / "m.npz")
    assert tree["w"].dtype == torch.bfloat16
    assert torch.equal(tree["w"], tensor)


def test_json_must_be_an_object(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, message in (
        ("[1]", r"config\.json must hold a JSON object"),
        ("{", r"config\.json can't be read: JSONDecodeError"),
        ("\udcff", r"config\.json can't be read: UnicodeDecodeError"),
    ):
        path.write_text(text, errors="surrogateescape", encoding="utf-8")
        with pytest.raises(ModelFileError, match=message):
            read_json(path)
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}


def test_arrays_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=np.arange(3, dtype=">f4"), b=np.arange(3, dtype="<f4"))
    tree, _ = read_archive(tmp_path / "m.npz")
    assert tree["a"].tolist() == tree["b"].tolist() == [0, 1, 2]


def test_torchscript_is_refused_with_a_way_to_convert_it(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "m.pt"))
    with pytest.raises(ModelFileError, match=r"TorchScript archive, .*torch\.jit\.load\(path\)"):
        read_archive(tmp_path / "m.pt")


def test_an_array_that_announces_more_than_there_is_memory_is_damaged(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,), }"
    npy = b"\x93NUMPY\x01\x00" + len(header + b" " * 10).to_bytes(2, "little") + header + b" " * 10
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("a.npy", npy)
    with pytest.raises(ModelFileError, match=r"m\.npz can't be read as \.npz"):
        read_archive(tmp_path / "m.npz")
