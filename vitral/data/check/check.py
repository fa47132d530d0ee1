"""The check of a data set: the problems of its files, copies, classes and groups; the verdict."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from vitral.config.preprocessing import default_preprocessing
from vitral.data.check.checked import CheckedData, clusters, exact_copies, near_copies, read_pixels
from vitral.data.check.problems import (
    ERROR,
    FEW_IMAGES,
    KINDS,
    MANY_PIXELS,
    MOST_IMBALANCE,
    NOTE,
    SMALL_SIDE,
    WARNING,
    Item,
    Problem,
)
from vitral.data.dataset import SPLITS
from vitral.data.file_types import SUFFIXES
from vitral.data.levels import choose_levels, to_eight_bit_range
from vitral.data.resize import resize
from vitral.data.sources.listing import FileInfo, class_order, names_in


@dataclass(frozen=True)
class Check:
    """What a check found."""

    data: CheckedData
    problems: tuple[Problem, ...]

    def count(self, weight: str) -> int:
        """Return the number of kinds of problems of a weight."""
        return sum(problem.weight == weight for problem in self.problems)

    @property
    def is_good(self) -> bool:
        """Whether nothing was found that would make a training or a score wrong."""
        return not self.count(ERROR)

    @property
    def verdict(self) -> str:
        """What is to be thought of the data, in a sentence."""
        errors, warnings = self.count(ERROR), self.count(WARNING)
        if errors:
            return f"bad: {_kinds(errors)} would make training or score wrong"
        if warnings:
            return f"usable: {_kinds(warnings)} should be looked at"
        return "good: nothing to complain about"

    def record(self, *, name: str) -> dict[str, Any]:
        """Return it as plain data."""
        counts = Counter(self.data.splits[self.data.usable].tolist())
        return {
            "name": name,
            "source": self.data.listing.source,
            "num_files": len(self.data.file_infos) + len(self.data.listing.skipped),
            "num_images": int(self.data.usable.sum()),
            "splits": {split: counts[split] for split in SPLITS if counts[split]},
            "verdict": self.verdict,
            "is_good": self.is_good,
            "problems": [problem.record() for problem in self.problems],
        }


def check(data: CheckedData, *, against: CheckedData | None = None) -> Check:
    """Look for every kind of problem.

    Args:
        data: opened.
        against: other data whose images the data should not have, such as a test set.
    """
    found: dict[str, list[Item]] = {kind: [] for kind in KINDS}
    _sort(found, (("not_whole", Item((), said)) for said in data.listing.complaints))
    _sort(found, file_problems(data))
    _sort(found, copy_problems(data))
    _sort(found, class_problems(data))
    _sort(found, group_problems(data))
    if against is not None:
        _sort(found, other_problems(data, against))
    return Check(data, tuple(Problem(kind, tuple(items)) for kind, items in found.items() if items))


def _sort(found: dict[str, list[Item]], problems: Iterable[tuple[str, Item]]) -> None:
    for kind, item in problems:
        found[kind].append(item)


def _kinds(count: int) -> str:
    return "one kind of problem" if count == 1 else f"{count} kinds of problems"


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


_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def file_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Give the problems of each file by kind, and what the source leaves out."""
    for number, file_info in enumerate(data.file_infos):
        name = data.name(number)
        for kind, detail in _problems(file_info, name):
            # A pack keeps the names of its source, whose kind it may have changed.
            is_own_name = kind != "wrong_extension" or data.listing.file_infos is None
            # Models of grey and alpha, or of RGBA, see transparency.
            is_put_on_white = kind != "alpha" or data.channels in (1, 3)
            if is_own_name and is_put_on_white:
                yield kind, Item((name,), detail)
    for skipped in data.listing.skipped:
        yield "left_out", Item((skipped.name,), skipped.reason)


def _problems(file_info: FileInfo, name: str) -> Iterator[tuple[str, str]]:
    if file_info.problem:
        yield "unreadable" if file_info.damaged else "not_read_yet", file_info.problem
        return
    if not file_info.height:
        return  # not looked into
    size = f"{file_info.height} x {file_info.width}"
    if file_info.is_flat:
        yield "flat", ""
    if min(file_info.height, file_info.width) < SMALL_SIDE:
        yield "tiny", size
    if file_info.height * file_info.width > MANY_PIXELS:
        yield "huge", size
    said = _KIND_OF_SUFFIX.get(PurePosixPath(name).suffix.lower())
    if said and file_info.format not in (said, "array"):
        yield "wrong_extension", file_info.format
    if file_info.turned:
        yield "turned", ""
    if file_info.mode == "CMYK":
        yield "cmyk", ""
    if file_info.mode in ("P", "PA"):
        yield "palette", ""
    if file_info.mode in ("RGBA", "LA", "PA"):
        yield "alpha", ""
    if file_info.is_deep:
        yield "deep", f"{file_info.depth}, {file_info.lowest:g} to {file_info.highest:g}"
    if file_info.num_frames > 1:
        yield "animated", f"{file_info.num_frames} frames"


SIDE = 192
"""Pixels of the longer side, at most."""
MAX_PICTURED = 24
"""Occurrences of each kind of problem that are pictured."""


def pictures_of(check: Check) -> dict[str, np.ndarray]:
    """Return by name the pictures (h, w, C) uint8 of files with problems that can be read."""
    place = {name: number for number, name in enumerate(check.data.listing.store.names)}
    wanted = dict.fromkeys(
        name
        for problem in check.problems
        if problem.weight != NOTE
        for item in problem.items[:MAX_PICTURED]
        for name in item.files
        if name in place
    )
    pictures: dict[str, np.ndarray] = {}
    for name in wanted:
        pixels = read_pixels(check.data.listing.store, place[name], channels=check.data.channels)
        if pixels is not None:
            pictures[name] = _small(pixels)
    return pictures


def _small(pixels: np.ndarray) -> np.ndarray:
    lowest, highest = float(pixels.min()), float(pixels.max())
    whole = pixels.dtype.kind != "f"
    levels = choose_levels(lowest, max(highest, lowest + 1), whole=whole)
    shown = np.rint(to_eight_bit_range(pixels, levels)).astype(np.uint8)
    height, width = shown.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    how = default_preprocessing(size, channels=shown.shape[2])
    return resize(shown, size, how).astype(np.uint8)


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
    count = len(data.file_infos)
    both = [*data.file_infos, *other.file_infos]
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
