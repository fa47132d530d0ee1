from pathlib import Path

from vitral.data.sources.grouping import group_by_pattern
from vitral.data.sources.listing import Listing
from vitral.data.stores.folder import FolderStore

NAMES = ["a/p1-1.png", "a/p1-2.png", "b/p2-1.png", "b/other.png"]


def listing():
    return Listing("photos", FolderStore(Path(), NAMES), ["a", "a", "b", "b"], [None] * 4)


def test_a_group_is_what_the_parentheses_match_or_all():
    grouped = group_by_pattern(listing(), r"(p\d)-")
    assert grouped.groups == ["p1", "p1", "p2", "b/other.png"]
    assert group_by_pattern(listing(), r"p\d-").groups[:3] == ["p1-", "p1-", "p2-"]


def test_an_empty_group_is_none():
    assert group_by_pattern(listing(), r"(p\d)?-|other").groups[3] == "b/other.png"


def test_without_a_pattern_nothing_changes():
    own = listing()
    assert group_by_pattern(own, None) is own
