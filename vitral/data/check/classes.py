"""Problems of classes, splits and groups."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from vitral.data.check.checked import CheckedData
from vitral.data.check.problems import FEW_IMAGES, MOST_IMBALANCE, Item
from vitral.data.images import SPLITS
from vitral.data.labels import names_in
from vitral.data.sources.listing import class_order


def class_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give what is odd about the classes of the splits."""
    present = {split: data.classes_of(split) for split in SPLITS}
    trained = present["train"]
    for split in SPLITS[1:]:
        for name in sorted(present[split] - trained, key=class_order):
            yield "not_trained", Item((), f"{name!r} of the {split} split")
        if present[split]:
            for name in sorted(trained - present[split], key=class_order):
                yield "not_tested", Item((), f"{name!r}, none in the {split} split")
    named = names_in(data.listing.labels) | set(data.listing.classes or ())
    elsewhere = set().union(*(present[split] for split in SPLITS[1:]))
    for name in sorted(named - trained - elsewhere, key=class_order):
        yield "empty_class", Item((), repr(name))
    if len(trained) == 1 and not data.listing.is_multi_label:
        yield "one_class", Item((), repr(next(iter(trained))))
    yield from _sizes(data)


def group_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give the groups that lie in more than one split, with a file of each."""
    if data.listing.groups is None:
        return
    places: dict[str, dict[str, int]] = defaultdict(dict)
    for number in np.flatnonzero(data.usable).tolist():
        places[data.listing.groups[number]].setdefault(str(data.splits[number]), number)
    for group, first_of in places.items():
        if len(first_of) > 1:
            files = tuple(data.name(number) for number in first_of.values())
            yield "groups", Item(files, f"{group!r} in {', '.join(first_of)}")


def _sizes(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give the classes that have few training images, or far fewer than the largest one."""
    counts: Counter[str] = Counter()
    for number in np.flatnonzero(data.usable & (data.splits == "train")).tolist():
        counts.update(names_in([data.listing.labels[number]]))
    most = max(counts.values(), default=0)
    for name, count in sorted(counts.items(), key=lambda item: (item[1], class_order(item[0]))):
        said = Item((), f"{name!r}: {count:,}")
        if count < FEW_IMAGES:
            yield "few_images", said
        if count * MOST_IMBALANCE < most:
            yield "imbalance", Item((), f"{said.detail} of {most:,}")
