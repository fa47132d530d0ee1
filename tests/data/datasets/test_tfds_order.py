import hashlib

import numpy as np
import pytest

from vitral.data.datasets.tfds_order import share_of, tfds_order


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
