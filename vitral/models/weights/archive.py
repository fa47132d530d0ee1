"""Reading of weight files, recognised by content: `.npz`, safetensors, torch checkpoints.

No code is executed: pickles are read by torch's weights-only loader.
"""

import argparse
import json
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vitral.errors import ModelFileError

Tree = Mapping[str, Any]
"""Tensors by name, perhaps nested in wrappers such as {"model": {...}}."""

# Errors of numpy and zipfile on damaged files; the last two on damage that looks like encryption
# or an unknown compression.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError,
    MemoryError, OverflowError,
)  # fmt: skip
# Errors of torch on old checkpoints that end too early or are no pickles.
_BROKEN_PICKLE = (AttributeError, TypeError, IndexError, ImportError, struct.error)
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# Largest header that safetensors allows, in bytes.
_LONGEST_HEADER = 100_000_000
# Plain objects that training scripts store with the weights (DeiT's, MAE's and DINO's `args`).
_HARMLESS: list[Any] = [argparse.Namespace]


def read_archive(path: Path) -> tuple[Tree, dict[str, str]]:
    """Return the content of a file, and the metadata in its header.

    Raises:
        ModelFileError: not a file of tensors, damaged, or one that would have to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror or error}") from None
    # First: the length of a header may begin with the byte that pickles begin with.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER:
        return _read_safetensors(path)
    if start.startswith(_ZIP) and _is_npz(path):
        return _read_npz(path), {}
    if start.startswith((_ZIP, _PICKLE)):
        return _read_torch(path), {}
    raise ModelFileError(
        f"{path} is no model file: it begins like none of .npz, safetensors and torch checkpoints"
    )


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _UNREADABLE as error:
        raise ModelFileError(f"{path} is damaged or not whole: {error}") from None
    if any(name.endswith("constants.pkl") for name in names):
        raise ModelFileError(
            f"{path} is a TorchScript archive, which holds code, and is refused. Where you trust "
            "its origin, save its weights once: safetensors.torch.save_file("
            "torch.jit.load(path).state_dict(), 'model.safetensors')"
        )
    return not any(name.endswith("data.pkl") for name in names)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except _UNREADABLE as error:
        raise ModelFileError(f"{path} can't be read as .npz: {error}") from None
    other = [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]
    if other:
        raise ModelFileError(f"{path} is no file of weights: it holds {other[0]}, no array")
    return {key: _as_tensor(array, name=key, path=path) for key, array in arrays.items()}


def _as_tensor(array: np.ndarray, *, name: str, path: Path) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        # numpy does not know bfloat16 and stores it as two bytes without a meaning.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError:
        raise ModelFileError(
            f"{path}: tensor {name} is of type {array.dtype}, not of numbers"
        ) from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelFileError(f"{path} can't be read as safetensors: {error}") from None


def _read_torch(path: Path) -> Tree:
    try:
        # An open file: of a path torch would read the name's ending.
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(_HARMLESS),
            warnings.catch_warnings(),
        ):
            # Of pickles that torch did not write; they are read or refused below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            tree = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ModelFileError(
            f"{path} is a pickle that would have to run code to be read, or is damaged, and is "
            f"refused ({reason}). Where you trust its origin, convert it once, away from anything "
            "that matters: safetensors.torch.save_file(torch.load(path, weights_only=False)"
            "['state_dict'], 'model.safetensors')"
        ) from None
    except (*_UNREADABLE, *_BROKEN_PICKLE) as error:
        raise ModelFileError(f"{path} can't be read as a torch checkpoint: {error}") from None
    if isinstance(tree, Tensor) or not isinstance(tree, Mapping):
        raise ModelFileError(
            f"{path} holds a {type(tree).__name__}, not named tensors: save a state dict"
        )
    return tree


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelFileError: it can't be read.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} can't be read: {error!r}") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} must hold a JSON object")
    return value
