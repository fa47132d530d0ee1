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
        """The verdict on the data, in a sentence."""
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
    _collect(found, (("not_whole", Item((), complaint)) for complaint in data.listing.complaints))
    _collect(found, file_problems(data))
    _collect(found, copy_problems(data))
    _collect(found, class_problems(data))
    _collect(found, group_problems(data))
    if against is not None:
        _collect(found, other_problems(data, against))
    return Check(data, tuple(Problem(kind, tuple(items)) for kind, items in found.items() if items))


def _collect(found: dict[str, list[Item]], problems: Iterable[tuple[str, Item]]) -> None:
    for kind, item in problems:
        found[kind].append(item)


def _kinds(count: int) -> str:
    return "one kind of problem" if count == 1 else f"{count} kinds of problems"


def class_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Yield the problems of the splits' classes."""
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
    """Yield the groups that are in more than one split, with a file of each split."""
    if data.listing.groups is None:
        return
    files_of_group: dict[str, dict[str, int]] = defaultdict(dict)
    for file_id in np.flatnonzero(data.usable).tolist():
        files_of_group[data.listing.groups[file_id]].setdefault(str(data.splits[file_id]), file_id)
    for group, first_of in files_of_group.items():
        if len(first_of) > 1:
            files = tuple(data.name(file_id) for file_id in first_of.values())
            yield "groups", Item(files, f"{group!r} in {', '.join(first_of)}")


def _sizes(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Yield the classes that have few training images, or far fewer than the largest one."""
    counts: Counter[str] = Counter()
    for file_id in np.flatnonzero(data.usable & (data.splits == "train")).tolist():
        counts.update(names_in([data.listing.labels[file_id]]))
    most = max(counts.values(), default=0)
    for name, count in sorted(counts.items(), key=lambda item: (item[1], class_order(item[0]))):
        entry = Item((), f"{name!r}: {count:,}")
        if count < FEW_IMAGES:
            yield "few_images", entry
        if count * MOST_IMBALANCE < most:
            yield "imbalance", Item((), f"{entry.detail} of {most:,}")


_KIND_OF_SUFFIX = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def file_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Yield the problems of each file by kind, and the files that the source leaves out."""
    for file_id, file_info in enumerate(data.file_infos):
        name = data.name(file_id)
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
    expected = _KIND_OF_SUFFIX.get(PurePosixPath(name).suffix.lower())
    if expected and file_info.format not in (expected, "array"):
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
    file_ids = {name: file_id for file_id, name in enumerate(check.data.listing.store.names)}
    wanted = dict.fromkeys(
        name
        for problem in check.problems
        if problem.weight != NOTE
        for item in problem.items[:MAX_PICTURED]
        for name in item.files
        if name in file_ids
    )
    pictures: dict[str, np.ndarray] = {}
    for name in wanted:
        pixels = read_pixels(check.data.listing.store, file_ids[name], channels=check.data.channels)
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
    preprocessing = default_preprocessing(size, channels=shown.shape[2])
    return resize(shown, size, preprocessing).astype(np.uint8)


def copy_problems(data: CheckedData) -> Iterator[tuple[str, Item]]:
    """Yield each copy with the file that it is a copy of, then each pair that looks alike."""
    for group in data.copies:
        for file_id in group[1:]:
            yield _kind(data, group, file_id, prefix=""), _pair(data, group[0], file_id)
    for first, second in data.near:
        kind = _kind(data, [first, second], second, prefix="near_")
        yield kind, _pair(data, first, second)


def find_shared_files(data: CheckedData, other: CheckedData) -> dict[int, tuple[int, bool]]:
    """Map each file of `data` that `other` has to the other's file and whether it is equal."""
    count = len(data.file_infos)
    both = [*data.file_infos, *other.file_infos]
    digests = ["" if file_info.problem else file_info.digest for file_info in both]
    found: dict[int, tuple[int, bool]] = {}
    for group in exact_copies(digests):
        if group[-1] >= count:
            other_id = next(file_id for file_id in group if file_id >= count) - count
            found |= {file_id: (other_id, True) for file_id in group if file_id < count}

    def look(file_id: int) -> np.ndarray | None:
        return data.look(file_id) if file_id < count else other.look(file_id - count)

    pairs = near_copies(["" if file_info.problem else file_info.visual for file_info in both], look)
    roots = clusters(pairs, count=len(both))
    first_of = {
        root: other_id for other_id, root in reversed(list(enumerate(roots[count:].tolist())))
    }
    for file_id, root in enumerate(roots[:count].tolist()):
        if file_id not in found and root in first_of:
            found[file_id] = (first_of[root], False)
    return dict(sorted(found.items()))


def other_problems(data: CheckedData, other: CheckedData) -> Iterator[tuple[str, Item]]:
    """Yield each file that the other data has too."""
    for file_id, (other_id, is_exact) in find_shared_files(data, other).items():
        detail = "the same content" if is_exact else "looks the same"
        yield "also_there", Item((data.name(file_id), other.name(other_id)), detail)


def _kind(data: CheckedData, group: list[int], file_id: int, *, prefix: str) -> str:
    """Return the worst that a copy may be, over all files that it is a copy of."""
    if len({data.label(member) for member in group}) > 1:
        return f"{prefix}other_class"
    if len({data.splits[member] for member in group}) > 1:
        return f"{prefix}across_splits"
    return f"{prefix}copies"


def _pair(data: CheckedData, first: int, second: int) -> Item:
    details = (
        f"{data.splits[file_id]}, {data.label(file_id) or 'no class'}"
        for file_id in (first, second)
    )
    return Item((data.name(first), data.name(second)), "; ".join(details))
