import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.labels import (
    class_counts,
    is_multi_label,
    label_text,
    members_by_class,
    names_in,
    number_labels,
)

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
