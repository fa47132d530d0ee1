import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.check.checked import clusters, exact_copies, near_copies, pairs_within

# Few different values, and flips of few bits of them: so that near ones are common.
BASES = [0, 2**64 - 1, 0x0F0F_1234_5678_9ABC]
NEAR = st.builds(
    lambda base, bits: base ^ sum(1 << bit for bit in bits),
    st.sampled_from(BASES),
    st.sets(st.integers(0, 63), max_size=9),
)


@given(st.sets(NEAR, max_size=60), st.integers(0, 7))
def test_every_near_pair_is_found_and_no_other(values, radius):
    hashes = np.array(sorted(values), np.uint64)
    expected = {
        (i, j)
        for j in range(len(hashes))
        for i in range(j)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= radius
    }
    found = pairs_within(hashes, radius)
    assert found.shape[1] == 2
    assert set(map(tuple, found.tolist())) == expected
    assert len(found) == len(expected)


def test_copies_are_groups_in_order():
    assert exact_copies(["a", "b", "", "a", "", "b", "a", "c"]) == [[0, 3, 6], [1, 5]]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_a_cluster_is_what_pairs_connect(pairs):
    found = clusters(pairs, count=12)
    reached = np.eye(12, dtype=bool)
    for one, other in pairs:
        reached[one, other] = reached[other, one] = True
    for middle in range(12):  # Warshall
        reached |= np.outer(reached[:, middle], reached[middle])
    assert found.tolist() == [int(np.flatnonzero(row)[0]) for row in reached]


def thumbnails(*seeds):
    return [np.random.default_rng(seed).normal(size=(32, 32)).astype(np.float32) for seed in seeds]


def test_pictures_of_near_hashes_are_compared():
    looks = thumbnails(1, 1, 2, 1)
    visuals = ["0" * 16, "0" * 15 + "3", "0" * 15 + "7", "f" * 16]
    assert near_copies(visuals, lambda number: looks[number]) == [(0, 1)]


def test_pictures_of_one_hash_are_compared_to_the_first():
    looks = thumbnails(1, 2, 1, 1, 5)
    visuals = ["ab" * 8] * 4 + [""]
    compared = []

    def look(number):
        compared.append(number)
        return looks[number]

    assert near_copies(visuals, look) == [(0, 2), (0, 3)]
    assert sorted(compared) == [0, 1, 2, 3]


def test_a_picture_that_is_gone_is_like_no_other():
    assert near_copies(["0" * 16] * 2, lambda _: None) == []


def test_nothing_is_like_nothing():
    assert near_copies([], lambda _: None) == []
    assert near_copies(["", ""], lambda _: None) == []


def test_of_films_some_pairs_are_compared():
    looks = thumbnails(1)
    visuals = [f"{number:016x}" for number in range(64)]  # all within six bits of one another
    compared = []

    def look(number):
        compared.append(number)
        return looks[0]

    found = near_copies(visuals, look, most=10)
    assert len(found) == 10
    assert len(set(compared)) <= 20
    assert len(near_copies(visuals, look)) == 64 * 63 // 2
