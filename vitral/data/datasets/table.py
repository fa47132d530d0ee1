"""The names of data sets and of VTAB's tasks, each with the publisher's file that states it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from vitral.data.datasets.published import LabelSet, NamedDataset
    from vitral.data.datasets.vtab import Task

Row = TypeVar("Row")


class _Rows(Mapping[str, Row]):
    """Rows by name; a publisher's file is imported when one of its rows is looked up."""

    def __init__(self, table: str, modules: Mapping[str, str]) -> None:
        self._table, self._modules = table, modules

    def __getitem__(self, name: str) -> Row:
        module = f"vitral.data.datasets.{self._modules[name]}"
        row: Row = getattr(importlib.import_module(module), self._table)[name]
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


DATASETS: Mapping[str, NamedDataset] = _Rows(
    "DATASETS",
    {
        "imagenet": "imagenet",
        "imagenet21k": "imagenet",
        "cifar10": "cifar",
        "cifar100": "cifar",
        "pets": "pets",
        "flowers102": "flowers",
    },
)
TASKS: Mapping[str, Task] = _Rows(
    "TASKS",
    {
        "caltech101": "caltech",
        "cifar100": "cifar",
        "dtd": "dtd",
        "flowers102": "flowers",
        "pets": "pets",
        "sun397": "sun397",
        "svhn": "svhn",
        "camelyon": "camelyon",
        "eurosat": "scenes",
        "resisc45": "scenes",
        "retinopathy": "retinopathy",
        "clevr-count": "clevr",
        "clevr-dist": "clevr",
        "dmlab": "dmlab",
        "kitti-dist": "kitti",
        "dsprites-loc": "dsprites",
        "dsprites-ori": "dsprites",
        "smallnorb-azim": "smallnorb",
        "smallnorb-elev": "smallnorb",
    },
)
LABEL_SETS: Mapping[str, LabelSet] = _Rows(
    "LABEL_SETS", {"imagenet-real": "label_sets", "objectnet": "label_sets"}
)
