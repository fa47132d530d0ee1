import pytest

from vitral.data.check.check import check
from vitral.data.check.checked import open_checked


@pytest.fixture
def problems_of():
    """A function that checks data and returns the occurrences of each kind of problem."""

    def run(path, *, against=None, **options):
        other = open_checked(against) if against else None
        found = check(open_checked(path, **options), against=other)
        return {
            problem.kind: [(*item.files, item.detail) for item in problem.items]
            for problem in found.problems
        }

    return run


@pytest.fixture
def pictures(picture, encode):
    """A function that gives contents, each its own picture, large enough to complain of nothing."""
    count = iter(range(10_000))

    def give(names, **options):
        return {
            name: encode(picture(next(count), size=(24, 20)), "PNG", **options) for name in names
        }

    return give


@pytest.fixture
def split_tree(fill, pictures, tmp_path):
    """A folder of two splits of two classes that nothing is wrong with, and its contents."""
    names = [
        f"{split}/{kind}/{n}.png"
        for split, count in (("train", 6), ("val", 2), ("test", 2))
        for kind in "ab"
        for n in range(count)
    ]
    contents = pictures(names)
    return fill(tmp_path / "photos", contents), contents
