from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vitral.data.sources.listing import class_order


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
