"""By which contents examples are known again; `counting` and `fill` are in conftest.py."""

import os
from dataclasses import replace

import numpy as np
import pytest
from helpers import noise
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vitral.data.contents import WatchedStore, content_digests, digest_of
from vitral.data.images import Examples, open_images
from vitral.data.stores.arrays import ArrayStore
from vitral.data.survey import look_into

FILES = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)]


@pytest.fixture
def opened(tmp_path, fill, counting):
    """The examples of a folder, with a store that counts what is read."""
    everything = open_images(fill(tmp_path / "data", FILES)).everything()
    return replace(everything, store=counting(everything.store))


def test_what_the_survey_has_read_is_not_read_again(opened):
    digests = content_digests(opened)
    assert opened.store.reads == []
    assert digests == content_digests(replace(opened, findings=None))
    assert sorted(opened.store.reads) == list(range(6))
    assert len(set(digests)) == 6


@pytest.mark.parametrize("workers", [-1, 0, 3])
def test_digests_are_in_the_order_of_the_examples(opened, workers):
    digests = content_digests(opened)
    order = np.array([4, 0, 4, 2])
    wanted = [digests[number] for number in order]
    assert content_digests(opened.select(order), workers=workers) == wanted
    assert digests == [digest_of(opened.read(index)) for index in range(6)]


def test_a_file_that_was_changed_after_the_survey_is_read(opened, tmp_path):
    before = content_digests(opened)
    path = tmp_path / "data" / opened.name(2)
    path.write_bytes(path.read_bytes() + b" ")
    after = content_digests(opened)
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, True, False] + [True] * 3
    assert opened.store.reads == [int(opened.numbers[2])]


def test_where_an_example_can_not_be_read_there_are_none(opened, tmp_path):
    (tmp_path / "data" / opened.name(2)).unlink()
    assert content_digests(opened) is None


PIXELS = arrays.arrays(np.uint8, st.sampled_from([(2, 6, 1), (3, 4, 1), (2, 2, 3)]))


@given(PIXELS, PIXELS)
def test_arrays_are_equal_in_shape_type_and_pixels_or_not_at_all(one, other):
    assert (digest_of(one) == digest_of(other)) == np.array_equal(one, other)
    assert digest_of(one) != digest_of(one.astype(np.uint16))
    assert digest_of(one[:, ::-1]) == digest_of(one[:, ::-1].copy())


class StampedArrays(ArrayStore):
    """Arrays of which it is known when they change."""

    def stamp(self, number):
        return "unchanged"


def test_arrays_of_a_survey_count_with_their_shape_too():
    pixels, digests = noise(4, 8), []
    for shape in ((4, 8, 3), (8, 4, 3)):
        store = StampedArrays(pixels.reshape(1, *shape), path="memory")
        finding = replace(look_into(store, 0, channels=3), stamp="unchanged")
        digests += content_digests(Examples(store, np.zeros(1, int), np.zeros(1), [finding]))
    assert digests[0] != digests[1]


def swap(path, other):
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(7, 7))


CHANGES = {
    "nothing": (lambda path, other: None, False),
    "another content": (swap, True),
    "gone": (lambda path, other: path.unlink(), True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("surveyed", [True, False])
def test_a_watched_store_sees_that_a_content_is_another_one(opened, tmp_path, change, surveyed):
    examples = opened if surveyed else replace(opened, findings=None)
    watched = WatchedStore(examples, content_digests(examples))
    act, is_change = CHANGES[change]
    assert watched.read(1) == opened.store.read(1)
    act(*(tmp_path / "data" / opened.store.names[number] for number in (1, 3)))
    if change == "gone":
        with pytest.raises(FileNotFoundError):
            watched.read(1)
    else:
        assert watched.read(1) == opened.store.read(1)
    assert watched.has_changed == is_change


def test_a_watched_store_is_else_the_store(opened):
    watched = WatchedStore(opened, content_digests(opened))
    assert watched.names == opened.store.names
    assert watched.stamp(1) == opened.store.stamp(1)
    assert watched.blocks() is None
