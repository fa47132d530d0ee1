"""EuroSAT and RESISC45: class folders of aerial scenes, without splits of their publishers.

Sources: https://github.com/phelber/EuroSAT (arXiv 1709.00029), arXiv 1703.00121.
"""

from vitral.data.datasets.published import DatasetFiles, File, Part, Published
from vitral.data.datasets.vtab import Task
from vitral.errors import DataError

EUROSAT_FILES = (
    File(
        "EuroSAT.zip",
        "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
        "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
        unpacked="2750",
    ),
)
RESISC45_FILES = (
    File(
        "NWPU-RESISC45.zip",
        "https://huggingface.co/datasets/isaaccorley/resisc45 (the publisher's is a .rar)",
        "beeecd0b63656290ae6d65cf7763185b0c1c4c54a753ef8088d6fba3faaf1f53",
        unpacked="NWPU-RESISC45",
    ),
)


def read_eurosat(place: DatasetFiles) -> Published:
    """Read `EuroSAT.zip`, whose folder is `2750`."""
    return _read(place, "EuroSAT.zip", "2750")


def read_resisc45(place: DatasetFiles) -> Published:
    """Read `NWPU-RESISC45.zip`, or the folder that the publisher's .rar unpacks to."""
    return _read(place, "NWPU-RESISC45.zip", "NWPU-RESISC45")


def _read(place: DatasetFiles, archive: str, folder: str) -> Published:
    members = place.members(archive)
    names = sorted(
        name
        for name in members.store.names
        if name.startswith(f"{folder}/") and name.count("/") == 2 and name.endswith(".jpg")
    )
    if not names:
        raise DataError(f"{members.where} has no images in {folder}/CLASS/")
    labels = [name.split("/")[1] for name in names]
    # As in TensorFlow Datasets from 4.2.0 on; earlier ones took the path on their own machine.
    keys = [f"{label}_{name.rpartition('/')[2]}" for name, label in zip(names, labels, strict=True)]
    part = Part(members.select(names), labels, keys)
    return Published(tuple(sorted(set(labels))), {"train": part})


TASKS = {
    "eurosat": Task(
        group="specialized",
        read=read_eurosat,
        files=EUROSAT_FILES,
        num_classes=10,
        train=("train", 0, 60),
        validation=("train", 60, 80),
        test=("train", 80, 100),
        num_test=5400,
        tree=("eurosat",),
        dataset="eurosat",
    ),
    "resisc45": Task(
        group="specialized",
        read=read_resisc45,
        files=RESISC45_FILES,
        num_classes=45,
        train=("train", 0, 60),
        validation=("train", 60, 80),
        test=("train", 80, 100),
        num_test=6300,
        tree=("resisc45",),
        dataset="resisc45",
    ),
}
