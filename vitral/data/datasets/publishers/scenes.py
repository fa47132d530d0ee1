"""EuroSAT and RESISC45: class folders of aerial scenes, without splits of their publishers.

Sources: https://github.com/phelber/EuroSAT (arXiv 1709.00029), arXiv 1703.00121.
"""

from vitral.data.datasets.published import Part, Place, Published
from vitral.errors import DataError


def read_eurosat(place: Place) -> Published:
    """Read `EuroSAT.zip`, whose folder is `2750`."""
    return _read(place, "EuroSAT.zip", "2750")


def read_resisc45(place: Place) -> Published:
    """Read `NWPU-RESISC45.zip`, or the folder that the publisher's .rar unpacks to."""
    return _read(place, "NWPU-RESISC45.zip", "NWPU-RESISC45")


def _read(place: Place, archive: str, folder: str) -> Published:
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
