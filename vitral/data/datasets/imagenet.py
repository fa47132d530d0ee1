"""ImageNet: ILSVRC-2012 and the whole of it, ImageNet-21k.

Classes are WordNet ids in their order, which is that of all published models' outputs.

Source: https://image-net.org; the development kit's readme.
"""

from pathlib import Path

import numpy as np

from vitral.data.datasets.published import (
    DatasetFiles,
    File,
    Members,
    NamedDataset,
    Part,
    Published,
)
from vitral.data.sources.archives import NestedTarStore
from vitral.data.sources.folders import walk_files
from vitral.data.sources.store import FolderStore, Store
from vitral.errors import DataError
from vitral.files.optional import read_mat

TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
WHOLE = "fall11_whole.tar"
_DATA = "ILSVRC2012_devkit_t12/data"
_IMAGENET = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
IMAGENET_FILES = (
    File(
        TRAIN,
        _IMAGENET,
        "b08200a27a8e34218a0e58fde36b0fe8f73bc377f4acea2d91602057c3ca45bb",
        unpacked="train",
    ),
    File(
        VALIDATION,
        _IMAGENET,
        "c7e06a6c0baccf06d8dbeb6577d71efff84673a5dbdd50633ab44f8ea0456ae0",
        unpacked="val",
    ),
    File(DEVKIT, _IMAGENET, unpacked="ILSVRC2012_devkit_t12", optional=True),
)
IMAGENET21K_FILES = (File(WHOLE, "https://image-net.org/download-images", unpacked="fall11_whole"),)


def read_imagenet(place: DatasetFiles) -> Published:
    """Read the tars of training and validation images, or the folders that they unpack to.

    Validation images that lie in folders of their classes need no development kit.
    """
    store, names = _class_files(place.path(TRAIN))
    labels = [name.split("/")[0] for name in names]
    classes = tuple(sorted(set(labels)))
    keys = [name.rpartition("/")[2] for name in names]
    validation = _validation(place, set(classes))
    return Published(classes, {"train": Part(store, labels, keys), "validation": validation})


def read_imagenet21k(place: DatasetFiles) -> Published:
    """Read the tar of all synsets' tars, or a folder of their folders."""
    store, names = _class_files(place.path(WHOLE))
    labels = [name.split("/")[0] for name in names]
    keys = [name.rpartition("/")[2] for name in names]
    return Published(tuple(sorted(set(labels))), {"train": Part(store, labels, keys)})


def _class_files(path: Path) -> tuple[Store, list[str]]:
    """Open a tar of one tar a class, or a folder of one folder a class."""
    store: Store
    if path.is_dir():
        names, _ = walk_files(path)
        inside = [name for name in names if name.count("/") == 1 and name.endswith(".JPEG")]
        store = FolderStore(path, inside)
    else:
        store = NestedTarStore(path)
    if not len(store.names):
        raise DataError(f"{path} has no images of the form WNID/NAME.JPEG")
    return store, list(store.names)


def _validation(place: DatasetFiles, classes: set[str]) -> Part:
    members = place.members(VALIDATION)
    names = sorted(
        (name for name in members.store.names if name.endswith(".JPEG")),
        key=lambda name: name.rpartition("/")[2],
    )
    keys = [name.rpartition("/")[2] for name in names]
    folders = [name.split("/")[-2] if "/" in name else "" for name in names]
    if names and set(folders) <= classes:
        return Part(members.select(names), folders, keys)
    place.require(DEVKIT)
    labels = validation_labels(place.members(DEVKIT))
    if len(labels) != len(names):
        raise DataError(
            f"{members.where} has {len(names):,} images, the development kit labels of "
            f"{len(labels):,}"
        )
    return Part(members.select(names), labels, keys)


def validation_labels(devkit: Members) -> list[str]:
    """Return the WordNet ids of the validation images, in the order of their names.

    The kit numbers classes in an order of its own, not in that of the WordNet ids.
    """
    meta = read_mat(devkit.read(f"{_DATA}/meta.mat"), where=f"{devkit.where}: meta.mat")
    synsets = np.atleast_1d(meta.get("synsets", ()))
    try:
        id_of = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        truth = devkit.lines(f"{_DATA}/ILSVRC2012_validation_ground_truth.txt")
        return [id_of[int(line)] for line in truth]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{devkit.where} states no validation classes: {error!r}") from None


DATASETS = {
    "imagenet": NamedDataset(
        title="ImageNet (ILSVRC-2012)",
        files=IMAGENET_FILES,
        read=read_imagenet,
        num_classes=1000,
        counts={"train": 1_281_167, "validation": 50_000},
        source="https://image-net.org",
        licence="for research and education without profit, not to be passed on",
        splits={"train": "train", "test": "validation"},
    ),
    "imagenet21k": NamedDataset(
        title="ImageNet-21k (fall 2011)",
        files=IMAGENET21K_FILES,
        read=read_imagenet21k,
        num_classes=21_841,
        counts={"train": 14_197_122},
        source="https://image-net.org",
        licence="for research and education without profit, not to be passed on",
        splits={"train": "train"},
    ),
}
