import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.dev_split import (
    all_for_training,
    check_overlap,
    find_overlap,
    hold_out,
    without_split,
)
from vitral.data.images import open_images
from vitral.errors import DataError


def write(path, count, *, num_classes=3, splits=None, copies=()):
    """Images that differ but for `copies`: pairs of places of which the second is as the first."""
    images = np.random.default_rng(1).integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
    for first, second in copies:
        images[second] = images[first]
    further = {} if splits is None else {"split": np.array(splits)}
    np.savez(path, images=images, labels=np.arange(count) % num_classes, **further)
    return path


def numbers(data):
    return {split: set(part.numbers.tolist()) for split, part in data.splits.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    return open_images(write(path, 240, splits=["train"] * 200 + ["test"] * 40))


@given(share=st.sampled_from([0.01, 0.02, 0.1, 0.2, 0.5]))
def test_a_share_of_every_class_is_held_out_and_nothing_is_lost(data, share):
    held = hold_out(data, share=share)
    own, before = numbers(held), numbers(data)
    assert own["train"] | own["validation"] == before["train"]
    assert not own["train"] & own["validation"]
    assert own["test"] == before["test"]
    counts = np.bincount(held.splits["validation"].labels, minlength=3)
    assert np.ptp(counts) <= 1
    assert abs(counts.sum() - 200 * share) <= 3
    assert all((held.splits[s].labels == held.splits[s].numbers % 3).all() for s in own)


def test_joining_undoes_holding_out(data):
    joined = all_for_training(hold_out(data, share=0.1))
    assert numbers(joined) == numbers(data)
    assert (joined.splits["train"].labels == joined.splits["train"].numbers % 3).all()
    assert all_for_training(data) is data


def test_what_is_held_out_does_not_depend_on_other_images(tmp_path, data):
    """Of more images of the same classes most stay where they are."""
    more = open_images(write(tmp_path / "b.npz", 270, splits=["train"] * 200 + ["test"] * 70))
    assert (
        numbers(hold_out(more, share=0.1))["validation"]
        == numbers(hold_out(data, share=0.1))["validation"]
    )


def test_one_image_can_not_be_divided(tmp_path):
    few = open_images(
        write(tmp_path / "c.npz", 4, num_classes=2, splits=["train"] * 2 + ["test"] * 2)
    )
    with pytest.raises(DataError, match="has 2 training images, of which no 10% can be held out"):
        hold_out(few, share=0.1)


def test_a_split_that_is_taken_out_is_gone(data):
    assert set(without_split(data, "test").splits) == {"train"}


def test_test_images_among_the_training_ones_are_named_and_refused(tmp_path):
    splits = ["train"] * 30 + ["test"] * 10
    data = open_images(
        write(tmp_path / "d.npz", 40, splits=splits, copies=[(3, 33), (5, 36), (7, 8)])
    )
    assert find_overlap(data) == [("33", "3"), ("36", "5")]
    with pytest.raises(
        DataError, match=r"2 of 10 test images of .*, such as 33 \(as 3\): the score"
    ):
        check_overlap(data)
    assert find_overlap(data, split="validation") == []
    check_overlap(data, split="validation")


def test_data_without_copies_passes(data):
    assert find_overlap(data) == []
    check_overlap(data)
