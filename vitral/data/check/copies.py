"""Problems of images that are, or look like, other images."""

from collections.abc import Iterator

import numpy as np

from vitral.data.check.checked import CheckedData
from vitral.data.check.duplicates import clusters, exact_copies, near_copies
from vitral.data.check.problems import Item


def copy_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give each copy with the file that it is a copy of, then each pair that looks alike."""
    for group in data.copies:
        for number in group[1:]:
            yield _kind(data, group, number, prefix=""), _pair(data, group[0], number)
    for first, second in data.near:
        kind = _kind(data, [first, second], second, prefix="near_")
        yield kind, _pair(data, first, second)


def found_in(data: CheckedData, other: CheckedData) -> dict[int, tuple[int, bool]]:
    """Return the files of `data` that `other` has: by number, the other's number and if exactly."""
    count = len(data.findings)
    both = [*data.findings, *other.findings]
    digests = ["" if own.problem else own.digest for own in both]
    found: dict[int, tuple[int, bool]] = {}
    for group in exact_copies(digests):
        if group[-1] >= count:
            place = next(number for number in group if number >= count) - count
            found |= {number: (place, True) for number in group if number < count}

    def look(number: int) -> np.ndarray | None:
        return data.look(number) if number < count else other.look(number - count)

    pairs = near_copies(["" if own.problem else own.visual for own in both], look)
    cluster = clusters(pairs, count=len(both))
    there = {own: place for place, own in reversed(list(enumerate(cluster[count:].tolist())))}
    for number, own in enumerate(cluster[:count].tolist()):
        if number not in found and own in there:
            found[number] = (there[own], False)
    return dict(sorted(found.items()))


def other_problems(data: CheckedData, other: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give each file that the other data has too."""
    for number, (place, is_exact) in found_in(data, other).items():
        detail = "the same content" if is_exact else "looks the same"
        yield "also_there", Item((data.name(number), other.name(place)), detail)


def _kind(data: CheckedData, group: list[int], number: int, *, prefix: str) -> str:
    """Return the worst that a copy may be, over all files that it is a copy of."""
    if len({data.label(own) for own in group}) > 1:
        return f"{prefix}other_class"
    if len({data.splits[own] for own in group}) > 1:
        return f"{prefix}across_splits"
    return f"{prefix}copies"


def _pair(data: CheckedData, first: int, second: int) -> Item:
    said = (f"{data.splits[own]}, {data.label(own) or 'no class'}" for own in (first, second))
    return Item((data.name(first), data.name(second)), "; ".join(said))
