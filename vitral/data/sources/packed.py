"""Folders of packed shards, as `vitral data pack` writes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.sources.listing import Label, Listing
from vitral.data.stores.packed import PackedFindings, PackedStore, ShardIndex, load_index
from vitral.errors import DataError

PACK_NAME = "pack.json"
FORMAT_VERSION = 1


def is_packed(folder: Path) -> bool:
    """Say whether a folder was written by `vitral data pack`."""
    return (folder / PACK_NAME).is_file()


def read_pack(folder: Path) -> dict[str, Any]:
    """Read what a pack says of itself.

    Raises:
        DataError: it is damaged, or of a later version.
    """
    path = folder / PACK_NAME
    try:
        pack: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = pack["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read: {error!r}") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} is of version {version}, this Vitral reads {FORMAT_VERSION}")
    return pack


def list_packed(folder: Path) -> Listing:
    """List the images of packed shards; what they are is known, and nothing is read.

    Raises:
        DataError: the pack is not complete, or damaged.
    """
    pack = read_pack(folder)
    if not pack["complete"]:
        raise DataError(
            f"{folder} is not packed to its end: the same `vitral data pack` command goes on"
        )
    shards, classes = pack["shards"], tuple(pack["classes"])
    paths = [folder / shard["name"] for shard in shards]
    indices = [load_index(path.with_suffix(".npz")) for path in paths]
    groups = None
    if any(index.groups is not None for index in indices):
        groups = [group for index in indices for group in index.groups or index.names]
    return Listing(
        str(folder.resolve()),
        PackedStore(paths, indices),
        [label for index in indices for label in _labels(index, classes)],
        [shard["split"] for shard, index in zip(shards, indices, strict=True) for _ in index.rows],
        classes=classes,
        notes=pack["notes"],
        groups=groups,
        findings=PackedFindings(indices),
    )


def _labels(index: ShardIndex, classes: tuple[str, ...]) -> list[Label]:
    own = index.rows["label"]
    if index.labels is None:
        return [classes[number] for number in own.tolist()]
    names = [classes[number] for number in index.labels.tolist()]
    ends = np.cumsum(own).tolist()
    return [tuple(names[first:end]) for first, end in zip([0, *ends], ends, strict=False)]
