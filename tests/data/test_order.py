import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitral.data.order import (
    cutmix_boxes,
    epoch_order,
    micro_batches,
    mixup_shares,
    plan_step,
    share_of,
    share_of_rank,
    steps_per_epoch,
    tfds_order,
    torch_seed,
    uniforms,
)

SEEDS = st.integers(0, 2**63)


def chi_square(counts):
    """Pearson's statistic against equal counts; its mean is len(counts) - 1."""
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


# 99.99 % point of chi-square with 9 degrees of freedom.
LIMIT_OF_TEN = 33.72


@given(SEEDS, st.integers(0, 1000), st.integers(1, 300))
def test_an_epoch_is_a_permutation(seed, epoch, count):
    assert sorted(epoch_order(seed, epoch, count).tolist()) == list(range(count))


def blocks_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(SEEDS, st.integers(0, 1000), SIZES, st.integers(1, 100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_epoch_of_blocks_reads_each_once_and_window_by_window(
    monkeypatch, seed, epoch, sizes, window
):
    monkeypatch.setattr("vitral.data.order.WINDOW", window)
    blocks = blocks_of(sizes)
    order = epoch_order(seed, epoch, len(blocks), blocks=blocks)
    assert sorted(order.tolist()) == list(range(len(blocks)))
    # No block that is done comes again, and no more are open than fit the window.
    met = blocks[order].tolist()
    spans = [(met.index(b), len(met) - 1 - met[::-1].index(b)) for b in range(len(sizes))]
    width = max(window, 2 * max(sizes)) + max(sizes)
    assert all(last - first < width for first, last in spans)


def spearman(order):
    return np.corrcoef(np.arange(len(order)), order)[0, 1]


@pytest.mark.parametrize("blocks", [None, blocks_of([100] * 400), blocks_of([1, 7, 300] * 100)])
def test_the_order_has_no_memory_of_the_files(blocks, monkeypatch):
    monkeypatch.setattr("vitral.data.order.WINDOW", 500)
    count = 40_000 if blocks is None else len(blocks)
    ranks = [spearman(epoch_order(0, epoch, count, blocks=blocks)) for epoch in range(20)]
    # Of n things in random order the correlation's deviation is 1 / sqrt(n - 1); the things that
    # are in random order here are the windows.
    things = count if blocks is None else count / 500
    assert abs(np.mean(ranks)) < 4 / np.sqrt(20 * things)
    assert np.abs(ranks).max() < 5 / np.sqrt(things)


@pytest.mark.parametrize(("size", "window", "together"), [(50, 1, 2), (10, 200, 20)])
def test_the_blocks_of_a_window_are_mixed(monkeypatch, size, window, together):
    monkeypatch.setattr("vitral.data.order.WINDOW", window)
    blocks = blocks_of([size] * 2 * together)
    met = blocks[epoch_order(0, 0, len(blocks), blocks=blocks)].reshape(2, size * together)
    for row in met:
        assert len(set(row.tolist())) == together
        # One block after the other, neighbours would differ at its ends only.
        assert (row[1:] != row[:-1]).mean() > 0.8 * (1 - 1 / together)


def test_orders_differ_by_seed_and_epoch():
    orders = {epoch_order(s, e, 50).tobytes() for s in range(6) for e in range(6)}
    assert len(orders) == 36


def splitmix64(state, number):
    """Output `number` of SplitMix64, in whole numbers of any size."""
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_the_reference_gives_the_published_outputs():
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [splitmix64(0, number) for number in range(3)] == published


@given(SEEDS, st.integers(0, 100), st.integers(1, 50))
def test_the_order_and_the_numbers_are_the_same_on_every_machine(seed, epoch, count):
    order_key, numbers_key = (splitmix64(splitmix64(seed, use), epoch) for use in (1, 2))
    by_key = sorted(range(count), key=lambda index: splitmix64(order_key, index))
    assert epoch_order(seed, epoch, count).tolist() == by_key
    expected = [
        [(splitmix64(splitmix64(numbers_key, index), column) >> 11) / 2**53 for column in range(3)]
        for index in range(count)
    ]
    assert uniforms(seed, epoch, np.arange(count), count=3).tolist() == expected


def test_an_order_can_not_be_changed_by_its_reader():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(0, 0, 8)[0] = 1


def test_every_example_comes_at_every_place_equally_often():
    orders = np.array([epoch_order(seed, 0, 10) for seed in range(4000)])
    statistics = [chi_square(np.bincount(orders[:, i], minlength=10)) for i in range(10)]
    assert max(statistics) < LIMIT_OF_TEN


@given(SEEDS, st.integers(0, 99), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_the_numbers_of_an_example_do_not_depend_on_its_company(seed, epoch, indices):
    together = uniforms(seed, epoch, np.array(indices), count=7)
    alone = [uniforms(seed, epoch, np.array([index]), count=7)[0] for index in indices]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(
        together[:, :3], uniforms(seed, epoch, np.array(indices), count=3)
    )


def test_the_numbers_are_even_in_every_column():
    numbers = uniforms(3, 5, np.arange(20_000), count=23)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    statistics = [chi_square(np.histogram(column, 10, (0, 1))[0]) for column in numbers.T]
    assert max(statistics) < LIMIT_OF_TEN


def test_the_numbers_of_columns_neighbours_and_epochs_are_unrelated():
    numbers = uniforms(3, 5, np.arange(20_000), count=23)
    later = uniforms(3, 6, np.arange(20_000), count=23)
    other = uniforms(4, 5, np.arange(20_000), count=23)
    columns = np.hstack([numbers[:-1], numbers[1:], later[:-1], other[:-1]])
    correlations = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_numbers_for_one_purpose_tell_nothing_of_those_for_another():
    indices = np.arange(2000)
    crops = uniforms(3, 1, indices, count=2)
    paths = uniforms(3, 1, indices, count=2, purpose="depth")
    assert abs(np.corrcoef(crops.ravel(), paths.ravel())[0, 1]) < 0.05
    assert not np.isin(crops, paths).any()


def test_seeds_and_epochs_do_not_stand_for_each_other():
    drawn = {uniforms(s, e, np.array([0]), count=1).item() for s in range(20) for e in range(20)}
    assert len(drawn) == 400


PLANS = st.tuples(st.integers(0, 200), st.integers(1, 200), st.integers(1, 80))


@given(st.integers(1, 200), st.integers(1, 80), st.integers(0, 3))
def test_the_steps_of_an_epoch_cover_each_position_once(num_examples, batch_size, epoch):
    count = steps_per_epoch(num_examples, batch_size)
    plans = [
        plan_step(epoch * count + k, num_examples=num_examples, batch_size=batch_size)
        for k in range(count)
    ]
    positions = [p for plan in plans for p in range(plan.start, plan.stop)]
    assert positions == list(range(num_examples))
    assert {plan.epoch for plan in plans} == {epoch}
    sizes = [plan.num_examples for plan in plans]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1 + 2 * (batch_size % 2 == 0)


@given(PLANS, st.integers(1, 5))
def test_the_processes_share_a_step_without_gap_or_overlap(plan, world_size):
    step, num_examples, batch_size = plan
    plan = plan_step(step, num_examples=num_examples, batch_size=batch_size)
    shares = [share_of_rank(plan, rank=rank, world_size=world_size) for rank in range(world_size)]
    positions = [position for start, stop in shares for position in range(start, stop)]
    assert positions == list(range(plan.start, plan.stop))
    sizes = [stop - start for start, stop in shares]
    assert max(sizes) - min(sizes) <= 3


@given(PLANS, st.integers(1, 5), st.integers(0, 20))
def test_pairs_stay_whole_over_processes_and_micro_batches(plan, world_size, half_size):
    step, num_examples, half_batch = plan
    plan = plan_step(step, num_examples=num_examples, batch_size=2 * half_batch)
    cuts = [
        cut
        for rank in range(world_size)
        for cut in micro_batches(
            *share_of_rank(plan, rank=rank, world_size=world_size), size=2 * half_size
        )
    ]
    rank_of = {p: k for k, (start, stop) in enumerate(cuts) for p in range(start, stop)}
    assert sorted(rank_of) == list(range(plan.start, plan.stop))
    pairs = [(p, p + 1) for p in range(plan.start, plan.stop - 1, 2)]
    assert all(first % 2 == 0 and rank_of[first] == rank_of[second] for first, second in pairs)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 40))
def test_micro_batches_cover_a_share_in_order(start, length, size):
    spans = list(micro_batches(start, start + length, size=size))
    assert [p for a, b in spans for p in range(a, b)] == list(range(start, start + length))
    assert all(0 < b - a <= (size or length) for a, b in spans)
    assert len(spans) == -(-length // (size or length or 1))


@given(SEEDS, st.integers(0, 50), st.integers(1, 60), st.floats(0.05, 5))
def test_the_two_of_a_pair_keep_the_same_share(seed, epoch, count, alpha):
    shares = mixup_shares(seed, epoch, count, alpha=alpha)
    assert shares.dtype == np.float32
    assert shares.shape == (count,)
    assert ((shares >= 0) & (shares <= 1)).all()
    pairs = shares[: count // 2 * 2].reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert (shares[count // 2 * 2 :] == 1).all()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 3.0])
def test_shares_have_the_moments_of_a_beta_distribution(alpha):
    pairs = mixup_shares(7, 2, 80_000, alpha=alpha)[::2].astype(np.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))  # central moment of Beta(alpha, alpha)
    assert pairs.mean() == pytest.approx(0.5, abs=4.5 * np.sqrt(variance / 40_000))
    spread = np.sqrt((fourth - variance**2) / 40_000)
    assert ((pairs - 0.5) ** 2).mean() == pytest.approx(variance, abs=4.5 * spread)


@given(SEEDS, st.integers(0, 50), st.integers(1, 60), st.floats(0.05, 5), st.booleans())
def test_the_two_of_a_pair_have_the_same_box(seed, epoch, count, alpha, with_mixup):
    boxes = cutmix_boxes(seed, epoch, count, alpha=alpha, with_mixup=with_mixup)
    assert boxes.shape == (count, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    pairs = boxes[: count // 2 * 2].reshape(-1, 2, 4)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert (boxes[count // 2 * 2 :] == 0).all()


def test_boxes_are_square_shares_of_a_beta_distribution_about_even_places():
    boxes = cutmix_boxes(5, 1, 40_000, alpha=1.0, with_mixup=False)[::2]
    whole = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < 1).all(axis=1)
    sides = boxes[whole, 2:] - boxes[whole, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert abs(middle.mean() - 0.5) < 0.01
    # A side is sqrt(1 - share), of mean 2/3 where shares are even; it may be cut at the edges.
    assert 0.4 < (boxes[:, 2:] - boxes[:, :2]).mean() < 2 / 3


def test_beside_mixup_half_of_the_pairs_are_cut():
    boxes = cutmix_boxes(5, 1, 40_000, alpha=1.0, with_mixup=True)[::2]
    assert abs(boxes.any(axis=1).mean() - 0.5) < 0.015
    alone = cutmix_boxes(5, 1, 40_000, alpha=1.0, with_mixup=False)[::2]
    assert alone.any(axis=1).all()


def test_shares_differ_by_seed_and_epoch():
    drawn = {mixup_shares(s, e, 4, alpha=1.0)[0] for s in range(6) for e in range(6)}
    assert len(drawn) == 36


@settings(max_examples=20)
@given(SEEDS)
def test_every_micro_batch_has_a_seed_of_its_own(seed):
    seeds = {
        torch_seed(seed, step, rank=rank, micro_batch=micro_batch)
        for step in range(8)
        for rank in range(4)
        for micro_batch in range(4)
    }
    assert len(seeds) == 128
    assert all(0 <= value < 2**63 for value in seeds)


def test_the_order_is_that_of_published_examples():
    # The first ids that TensorFlow Datasets gives of cifar10 and cifar100: `train_16399`, ...
    order = tfds_order("train", [str(n) for n in range(50_000)])
    assert order[:10].tolist() == [
        16399, 1680, 47917, 17307, 27051, 48736, 26263, 1456, 19135, 31598
    ]  # fmt: skip
    assert sorted(order.tolist()) == list(range(50_000))


@pytest.mark.parametrize(
    ("split", "count", "digest"),
    [
        ("train", 50_000, "5b25ee0661c3bc4a"), ("train", 73_257, "901fe4f6d4f65bc8"),
        ("train", 24_300, "438b845e2bd4a468"), ("test", 24_300, "f7fe590831a454c9"),
        pytest.param("train", 737_280, "54130b46ffd22579", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_first_800_do_not_change(split, count, digest):
    first = tfds_order(split, [str(n) for n in range(count)])[:800]
    text = "\n".join(map(str, first.tolist()))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_the_split_salts_the_order():
    keys = [f"{n}.jpg" for n in range(100)]
    assert not np.array_equal(tfds_order("train", keys), tfds_order("test", keys))


@pytest.mark.parametrize(
    ("count", "percent", "end"),
    [(73_257, 90, 65_931), (50_000, 90, 45_000), (3680, 80, 2944), (5, 50, 2), (7, 50, 4)],
)
def test_percents_end_at_the_nearest_halves_at_even(count, percent, end):
    assert share_of(count, percent) == end
