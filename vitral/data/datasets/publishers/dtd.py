"""Describable Textures.

Source: https://www.robots.ox.ac.uk/~vgg/data/dtd/
"""

from vitral.data.datasets.published import Part, Place, Published

_LISTS = {"train": "train1", "validation": "val1", "test": "test1"}


def read_dtd(place: Place) -> Published:
    """Read `dtd-r1.0.1.tar.gz` by the lists of its first fold, the one that VTAB uses."""
    members = place.members("dtd-r1.0.1.tar.gz")
    names = {split: members.lines(f"dtd/labels/{own}.txt") for split, own in _LISTS.items()}
    labels = {split: [name.split("/")[0] for name in own] for split, own in names.items()}
    return Published(
        tuple(sorted({label for own in labels.values() for label in own})),
        {
            split: Part(members.select([f"dtd/images/{n}" for n in own]), labels[split], own)
            for split, own in names.items()
        },
    )
