"""What lies at a path: tensors by their plain names, and the files that speak of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from vitral.errors import ModelFileError
from vitral.models.weights.archive import read_archive, read_json
from vitral.models.weights.unwrap import unwrap

# Names of weights in a folder, the one to use first.
WEIGHT_NAMES = (
    "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "model.bin",
    "model.pth", "model.pt", "model.npz",
)  # fmt: skip
INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
OWN_KEY = "vitral"
"""Under which our writers put the model's own description into the header of safetensors."""


@dataclass(frozen=True)
class Source:
    """Weights as they lie on disk, with what is said of them."""

    path: str
    """For messages."""
    tensors: dict[str, Tensor]
    """By their plain names: wrappers and common prefixes are gone; float32."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """What the caller says of the weights: `num_heads`, `image_size`, ..."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """`config.json` beside the weights."""
    processor: Mapping[str, Any] = field(default_factory=dict)
    """`preprocessor_config.json` beside the weights (Hugging Face)."""
    own: Mapping[str, Any] | None = None
    """The description that our own writers left in the header."""
    assumed: list[str] = field(default_factory=list)
    """Gets what the weights do not tell and was taken for granted, for the user to see."""

    def assume(self, what: str) -> None:
        """Note something that was taken for granted, once."""
        if what not in self.assumed:
            self.assumed.append(what)


def read_source(path: Path, *, stated: Mapping[str, Any]) -> Source:
    """Read a file of weights, or a folder that holds one.

    Raises:
        ModelFileError: there are no weights, or they can't be read.
    """
    if path.is_file():
        beside = path.parent if path.name in WEIGHT_NAMES else None
        return _read_files([path], stated=stated, folder=beside, shown=path)
    return _read_files(_weights_of(path), stated=stated, folder=path, shown=path)


def _weights_of(folder: Path) -> list[Path]:
    """Return the files of a folder that hold the weights: one, or shards by their index."""
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
    for name in INDEX_NAMES:
        if (folder / name).is_file():
            return [folder / shard for shard in shard_names(folder / name)]
    loose = sorted(p for p in folder.iterdir() if p.suffix in (".npz", ".safetensors", ".pth"))
    if len(loose) == 1:
        return loose
    raise ModelFileError(
        f"{folder} holds no model: it has no model folder in model/ and none of "
        + ", ".join(WEIGHT_NAMES)
        + (f"; give one of {', '.join(p.name for p in loose)}" if loose else "")
    )


def shard_names(index: Path) -> list[str]:
    """Return the files that an index names, which lie beside it.

    Raises:
        ModelFileError: it names none, or files elsewhere.
    """
    places = read_json(index).get("weight_map")
    names = {str(name) for name in places.values()} if isinstance(places, dict) else set()
    if not names or any(Path(name).name != name for name in names):
        raise ModelFileError(f"{index} names no files of its folder")
    return sorted(names)


def _read_files(
    paths: list[Path], *, stated: Mapping[str, Any], folder: Path | None, shown: Path
) -> Source:
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    tree: dict[str, Any] = {}
    for path in paths:
        part, own_header = read_archive(path)
        tree |= part
        header |= own_header
    tensors = unwrap(tree, path=shown)
    beside = {
        name: read_json(folder / f"{name}.json")
        for name in ("config", "preprocessor_config")
        if folder and (folder / f"{name}.json").is_file()
    }
    return Source(
        path=str(shown),
        tensors=tensors,
        stated=stated,
        config=beside.get("config", {}),
        processor=beside.get("preprocessor_config", {}),
        own=_own_description(header),
    )


def _own_description(header: Mapping[str, str]) -> Mapping[str, Any] | None:
    try:
        described = json.loads(header.get(OWN_KEY, "null"))
    except ValueError:
        return None
    return described if isinstance(described, dict) and "model" in described else None
