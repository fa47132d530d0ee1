import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.dataset import open_dataset
from vitral.data.splits import (
    all_for_training,
    check_overlap,
    find_overlap,
    group_shares,
    hash_shares,
    hold_out,
    hold_out_by_hash,
    other_shares,
    split_by_hash,
    stratified_folds,
    without_split,
)
from vitral.errors import DataError

SHARES = st.floats(0, 1, exclude_max=True)
EXAMPLES = st.lists(st.tuples(SHARES, st.integers(0, 3)), min_size=1, max_size=40)


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def columns(examples):
    return np.array([e[0] for e in examples], float), np.array([e[1] for e in examples], int)


def own_split(share):
    """Where an image goes by its hash alone."""
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


def test_shares_are_the_hash_as_a_fraction():
    shares = hash_shares(["0" * 32, "8" + "0" * 31, "f" * 32])
    assert shares.tolist() == [0.0, 0.5, 1 - 16**-13]


def test_a_large_set_is_split_in_about_80_10_10():
    splits = split_by_hash(hash_shares([digest(n) for n in range(20_000)]), np.zeros(20_000, int))
    counts = Counter(splits.tolist())
    assert abs(counts["train"] / 20_000 - 0.8) < 0.01
    assert abs(counts["validation"] / 20_000 - 0.1) < 0.01
    assert abs(counts["test"] / 20_000 - 0.1) < 0.01


@given(EXAMPLES)
def test_every_class_is_trained_on_and_tested_when_it_has_two_contents(examples):
    shares, labels = columns(examples)
    splits = split_by_hash(shares, labels)
    splits_of = {label: set(splits[labels == label]) for label in set(labels.tolist())}
    several = {label for label in splits_of if len(set(shares[labels == label])) > 1}
    assert all("train" in names for names in splits_of.values())
    assert {label for label in splits_of if "test" in splits_of[label]} == several


@pytest.mark.parametrize(
    ("shares", "splits"),
    [
        ([0.91, 0.97], ["train", "test"]),
        ([0.85, 0.81, 0.95], ["validation", "train", "test"]),
        ([0.1, 0.7, 0.3], ["train", "test", "train"]),
        ([0.1, 0.7, 0.85], ["train", "train", "test"]),
        ([0.81, 0.89], ["train", "test"]),
        ([0.95, 0.95], ["train", "train"]),
        ([0.3], ["train"]),
    ],
)
def test_a_class_without_a_train_or_test_image_gets_the_one_with_the_nearest_hash(shares, splits):
    found = split_by_hash(np.array(shares), np.zeros(len(shares), int))
    assert found.tolist() == splits


@given(EXAMPLES)
def test_copies_within_a_class_stay_together(examples):
    shares, labels = columns(examples * 2)
    splits = split_by_hash(shares, labels)
    assert splits[: len(examples)].tolist() == splits[len(examples) :].tolist()


@given(EXAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_nothing(examples, random):
    order = list(range(len(examples)))
    random.shuffle(order)
    shares, labels = columns(examples)
    splits = split_by_hash(shares, labels)
    assert split_by_hash(shares[order], labels[order]).tolist() == splits[order].tolist()


COMPLETE = [(share, label) for label in range(4) for share in (0.1, 0.95)]


@given(EXAMPLES, EXAMPLES)
def test_adding_images_moves_none(examples, added):
    shares, labels = columns(COMPLETE + examples)
    more_shares, more_labels = columns(COMPLETE + examples + added)
    before = split_by_hash(shares, labels)
    assert split_by_hash(more_shares, more_labels)[: len(before)].tolist() == before.tolist()


@given(EXAMPLES)
def test_each_image_goes_by_its_own_hash_where_classes_are_complete(examples):
    shares, labels = columns(COMPLETE + examples)
    assert split_by_hash(shares, labels).tolist() == [own_split(share) for share in shares]


@given(EXAMPLES, st.floats(0, 0.5))
def test_images_of_low_hashes_are_held_out_but_never_a_whole_class(examples, share):
    shares, labels = columns(examples)
    held_out = hold_out_by_hash(shares, labels, share=share)
    assert (shares[held_out] < share).all()
    kept_back = set(labels[(shares < share) & ~held_out].tolist())
    assert all((shares[labels == label] < share).all() for label in kept_back)
    assert set(labels[~held_out].tolist()) == set(labels.tolist())


def test_about_the_asked_share_is_held_out():
    shares = hash_shares([digest(n) for n in range(20_000)])
    assert abs(hold_out_by_hash(shares, np.arange(20_000) % 10, share=0.05).mean() - 0.05) < 0.005


GROUPED = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=40)


@given(GROUPED, st.floats(0, 0.9))
def test_a_group_is_never_torn_apart(examples, share):
    groups, labels = (np.array(column) for column in zip(*examples, strict=True))
    shares = group_shares([str(group) for group in groups])
    splits = split_by_hash(shares, labels, grouped=True)
    held_out = hold_out_by_hash(shares, labels, share=share, grouped=True)
    for group in set(groups.tolist()):
        assert len(set(splits[groups == group])) == 1
        assert len(set(held_out[groups == group])) == 1
    assert set(labels[splits == "train"].tolist()) == set(labels.tolist())
    assert set(labels[~held_out].tolist()) == set(labels.tolist())


def test_groups_are_split_in_about_80_10_10():
    splits = split_by_hash(group_shares(list(map(str, range(5000)))), np.zeros(5000, int))
    assert abs(np.mean(splits == "train") - 0.8) < 0.02


@given(EXAMPLES)
def test_each_of_several_labels_is_trained_on(examples):
    shares, first = columns(examples)
    multi_hot = np.eye(4, dtype=np.uint8)[first] | np.eye(4, dtype=np.uint8)[(first * 7 + 1) % 4]
    splits = split_by_hash(shares, multi_hot)
    assert (multi_hot[splits == "train"].any(axis=0) == multi_hot.any(axis=0)).all()


@given(EXAMPLES, st.integers(2, 6))
def test_every_fold_gets_a_like_part_of_each_class(examples, folds):
    shares, labels = columns(examples)
    shares, firsts = np.unique(shares, return_index=True)  # each content once
    labels = labels[firsts]
    found = stratified_folds(shares, labels, folds=folds)
    for label in set(labels.tolist()):
        counts = np.bincount(found[labels == label], minlength=folds)
        assert counts.max() - counts.min() <= 1


@given(GROUPED, st.integers(2, 5))
def test_a_fold_never_tears_a_group(examples, folds):
    groups, labels = (np.array(column) for column in zip(*examples, strict=True))
    found = stratified_folds(group_shares([str(g) for g in groups]), labels, folds=folds)
    assert all(len(set(found[groups == group])) == 1 for group in set(groups.tolist()))
    assert set(found.tolist()) <= set(range(folds))


def test_other_shares_tell_nothing_of_the_first():
    shares = hash_shares([digest(n) for n in range(20_000)])
    other = other_shares(shares)
    assert abs(np.corrcoef(shares, other)[0, 1]) < 4 / np.sqrt(20_000)
    assert (other_shares(shares[:9].repeat(2)).reshape(9, 2).std(axis=1) == 0).all()
    assert abs((other < 0.05).mean() - 0.05) < 0.006


def test_an_added_example_moves_few():
    shares = hash_shares([digest(n) for n in range(1001)])
    labels = np.zeros(1001, int)
    before = stratified_folds(shares[:1000], labels[:1000], folds=5)
    after = stratified_folds(shares, labels, folds=5)
    assert (before != after[:1000]).sum() <= 4


def test_an_image_of_several_classes_counts_for_its_rarest():
    multi_hot = np.ones((40, 2), np.uint8)
    multi_hot[:30, 1] = 0
    shares = hash_shares([digest(n) for n in range(40)])
    found = stratified_folds(shares, multi_hot, folds=5)
    assert np.bincount(found[30:], minlength=5).tolist() == [2] * 5
    assert np.bincount(found[:30], minlength=5).tolist() == [6] * 5


def test_images_without_a_class_are_spread_too():
    shares = hash_shares([digest(n) for n in range(20)])
    found = stratified_folds(shares, np.zeros((20, 3), np.uint8), folds=4)
    assert np.bincount(found).tolist() == [5] * 4


def write(path, count, *, num_classes=3, splits=None, copies=()):
    """Images that differ but for `copies`: pairs of places of which the second is as the first."""
    images = np.random.default_rng(1).integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
    for first, second in copies:
        images[second] = images[first]
    arrays = {} if splits is None else {"split": np.array(splits)}
    np.savez(path, images=images, labels=np.arange(count) % num_classes, **arrays)
    return path


def file_ids(data):
    return {split: set(part.file_ids.tolist()) for split, part in data.splits.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    return open_dataset(write(path, 240, splits=["train"] * 200 + ["test"] * 40))


@given(share=st.sampled_from([0.01, 0.02, 0.1, 0.2, 0.5]))
def test_a_share_of_every_class_is_held_out_and_nothing_is_lost(data, share):
    result = hold_out(data, share=share)
    after, before = file_ids(result), file_ids(data)
    assert after["train"] | after["validation"] == before["train"]
    assert not after["train"] & after["validation"]
    assert after["test"] == before["test"]
    counts = np.bincount(result.splits["validation"].labels, minlength=3)
    assert np.ptp(counts) <= 1
    assert abs(counts.sum() - 200 * share) <= 3
    assert all((result.splits[s].labels == result.splits[s].file_ids % 3).all() for s in after)


def test_joining_undoes_holding_out(data):
    joined = all_for_training(hold_out(data, share=0.1))
    assert file_ids(joined) == file_ids(data)
    assert (joined.splits["train"].labels == joined.splits["train"].file_ids % 3).all()
    assert all_for_training(data) is data


def test_what_is_held_out_does_not_depend_on_other_images(tmp_path, data):
    """Of more images of the same classes most stay where they are."""
    more = open_dataset(write(tmp_path / "b.npz", 270, splits=["train"] * 200 + ["test"] * 70))
    assert (
        file_ids(hold_out(more, share=0.1))["validation"]
        == file_ids(hold_out(data, share=0.1))["validation"]
    )


def test_one_image_can_not_be_divided(tmp_path):
    few = open_dataset(
        write(tmp_path / "c.npz", 4, num_classes=2, splits=["train"] * 2 + ["test"] * 2)
    )
    with pytest.raises(DataError, match="has 2 training images, of which no 10% can be held out"):
        hold_out(few, share=0.1)


def test_a_split_that_is_taken_out_is_gone(data):
    assert set(without_split(data, "test").splits) == {"train"}


def test_test_images_among_the_training_ones_are_named_and_refused(tmp_path):
    splits = ["train"] * 30 + ["test"] * 10
    data = open_dataset(
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
