from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vitral.data.sources.listing import (
    Listing,
    class_counts,
    class_order,
    group_by_pattern,
    is_multi_label,
    label_text,
    members_by_class,
    names_in,
    number_labels,
)
from vitral.data.sources.store import FolderStore


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "9", "100", "1"], ["1", "9", "10", "100"]),
        (["010", "9", "1"], ["1", "9", "010"]),
        (["dog", "cat", "7", "11"], ["7", "11", "cat", "dog"]),
        (["n10", "n9"], ["n10", "n9"]),
        (["b", "A", "a"], ["A", "a", "b"]),
    ],
)
def test_class_names_that_are_numbers_sort_as_numbers(names, ordered):
    assert sorted(names, key=class_order) == ordered


@given(st.lists(st.text(max_size=4)))
@example(["\N{SUPERSCRIPT TWO}", "3", "\N{ARABIC-INDIC DIGIT TWO}"])
def test_any_class_names_have_an_order(names):
    assert Counter(sorted(names, key=class_order)) == Counter(names)


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
    source = listing()
    assert group_by_pattern(source, None) is source


CLASSES = ("ant", "bee", "cow")
SINGLE = ["cow", "ant", "ant"]
SEVERAL = [("cow", "ant"), (), ("ant",)]


def test_single_labels_become_numbers():
    labels = number_labels([*SINGLE, "dog"], CLASSES)
    assert labels.tolist() == [2, 0, 0, -1]
    assert labels.dtype == np.int64
    assert not is_multi_label(labels)


def test_several_labels_become_marks():
    labels = number_labels([*SEVERAL, ("dog", "bee")], CLASSES)
    assert labels.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert is_multi_label(labels)


@pytest.mark.parametrize("given", [SINGLE, SEVERAL])
def test_names_counts_and_members_agree(given):
    labels = number_labels(given, CLASSES)
    assert names_in(given) == {"ant", "cow"}
    assert class_counts(labels, num_classes=3).tolist() == [2, 0, 1]
    assert [members.sum() for members in members_by_class(labels)] == [2, 1]


@given(st.lists(st.lists(st.sampled_from(CLASSES), unique=True).map(tuple), min_size=1))
def test_the_text_of_several_labels_names_them_in_order(given):
    labels = number_labels(given, CLASSES)
    assert [label_text(row, CLASSES) for row in labels] == ["|".join(sorted(row)) for row in given]


def test_the_text_of_a_single_label_is_its_class():
    assert label_text(number_labels(["bee"], CLASSES)[0], CLASSES) == "bee"
