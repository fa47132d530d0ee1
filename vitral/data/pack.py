"""Packing: the images of any source into shards, resized if wanted, with an index and checksums.

A pack is a folder of plain tars, each with its index, beside `pack.json`, which says all that was
done to the images, `classes.txt` and `skipped.csv`. Other tools read the tars as WebDataset's.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.dataset import ImageDataset
from vitral.data.order import epoch_order
from vitral.data.pack_shard import PackSettings, write_shard
from vitral.data.sources.packed import FORMAT_VERSION, PACK_NAME, is_packed, load_index, read_pack
from vitral.errors import RequestError
from vitral.files.atomic import remove_leftovers, sha256, write_json, write_text
from vitral.files.rows import csv_text
from vitral.version import __version__

_Planned = tuple[str, str, np.ndarray]
"""Name, split and examples of a shard."""


def pack(
    data: ImageDataset,
    folder: Path,
    settings: PackSettings,
    *,
    name: str,
    report_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a pack, or resume one that was begun with the same data and settings.

    Args:
        data: opened.
        folder: of the pack; may exist if it is empty or the same pack.
        settings: how images are packed.
        name: of the data.
        report_progress: called with the number of images done and of all.

    Returns:
        The content of `pack.json`.

    Raises:
        RequestError: the folder holds something else, or a pack of other data or settings.
        DataError: an image can no longer be read.
    """
    statement = _statement(data, settings, name=name)
    if is_packed(folder):
        begun = read_pack(folder)
        _check_same(begun, statement, folder)
        if begun["complete"]:
            return begun
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} holds something else: give an --output of its own")
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_json(folder / PACK_NAME, statement)
    planned, done = list(_shards(data, settings)), 0
    total = sum(len(indices) for _, _, indices in planned)
    for shard, split, indices in planned:
        path = folder / shard
        if not path.with_suffix(".npz").exists():
            write_shard(path, data, data.splits[split], indices, settings)
        done += len(indices)
        if report_progress:
            report_progress(done, total)
    write_text(folder / "classes.txt", "".join(f"{class_name}\n" for class_name in data.classes))
    complete = statement | _result(data, folder, planned)
    write_json(folder / PACK_NAME, complete)
    return complete


def _result(data: ImageDataset, folder: Path, planned: Sequence[_Planned]) -> dict[str, Any]:
    """Write the list of what is left out, and return the final part of `pack.json`."""
    indices = [load_index((folder / shard).with_suffix(".npz")) for shard, _, _ in planned]
    left_out = [*data.skipped, *(item for _, item in data.unreadable)]
    rows = [{"path": item.name, "reason": item.reason} for item in left_out]
    rows += [{"path": name, "reason": why} for index in indices for name, why in index.skipped]
    write_text(folder / "skipped.csv", csv_text(rows, columns=("path", "reason")))
    shards = [
        {
            "name": shard,
            "split": split,
            "num_images": len(index.rows),
            "bytes": (folder / shard).stat().st_size,
            "sha256": sha256(folder / shard),
        }
        for (shard, split, _), index in zip(planned, indices, strict=True)
    ]
    counts: Counter[str] = Counter()
    for (_, split, _), index in zip(planned, indices, strict=True):
        counts[split] += len(index.rows)
    return {
        "splits": dict(counts),
        "num_skipped": len(rows),
        "shards": shards,
        "complete": True,
    }


def _statement(data: ImageDataset, settings: PackSettings, *, name: str) -> dict[str, Any]:
    """Return the initial content of `pack.json`."""
    return {
        "format_version": FORMAT_VERSION,
        "vitral_version": __version__,
        "name": name,
        "source": data.source,
        "fingerprint": data.fingerprint(),
        "order": _order(data),
        "images": settings.describe(),
        "settings": asdict(settings),
        "classes": list(data.classes),
        "labels": "any" if data.is_multi_label else "one",
        "notes": [f"packed from {data.source}: {settings.describe()}"],
        "complete": False,
    }


def _check_same(begun: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    stated, asked = (
        {
            **statement["settings"],
            "data": statement["fingerprint"],
            "order": statement["order"],
            "version": statement["vitral_version"],
        }
        for statement in (begun, wanted)
    )
    other = [
        f"{key} {stated.get(key)}, not {asked[key]}"
        for key in asked
        if stated.get(key) != asked[key]
    ]
    if other:
        raise RequestError(
            f"{folder} was begun with {'; '.join(other)}: give another --output, or remove it"
        )


def _order(data: ImageDataset) -> str:
    """Return a hash of the order of images and classes, by which the shards are cut."""
    parts = [
        f"{split} {name}"
        for split, part in data.splits.items()
        for name in (part.name(index) for index in range(len(part)))
    ]
    text = "\n".join([*data.classes, "", *parts])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _shards(data: ImageDataset, settings: PackSettings) -> Iterator[_Planned]:
    """Yield name, split and examples of each shard; the classes of a split are mixed."""
    for split, examples in data.splits.items():
        order = epoch_order(0, 0, len(examples), blocks=examples.blocks())
        for index, start in enumerate(range(0, len(order), settings.images_per_shard)):
            indices = order[start : start + settings.images_per_shard]
            yield f"{split}-{index:05}.tar", split, indices
