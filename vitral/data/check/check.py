"""The check of a data set: all its problems, and the verdict."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vitral.data.check.checked import CheckedData
from vitral.data.check.classes import class_problems, group_problems
from vitral.data.check.copies import copy_problems, other_problems
from vitral.data.check.files import file_problems
from vitral.data.check.problems import ERROR, KINDS, WARNING, Item, Problem
from vitral.data.images import SPLITS


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
            "num_files": len(self.data.findings) + len(self.data.listing.skipped),
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
