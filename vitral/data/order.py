"""The order of examples and their random numbers: pure functions of (seed, epoch, index).

No generator has a state, so a run can resume at any step, and the number of workers, processes and
micro-batches changes nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
WINDOW = 4096
"""Examples, at least, that are mixed where they can only be read in blocks."""


@dataclass(frozen=True)
class StepPlan:
    """The positions in the epoch's order that one step trains on."""

    step: int
    epoch: int
    start: int
    stop: int

    @property
    def num_examples(self) -> int:
        """How many examples the step has, over all processes."""
        return self.stop - self.start


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of steps of an epoch, of at most `batch_size` examples each."""
    return -(-num_examples // batch_size)


def plan_step(step: int, *, num_examples: int, batch_size: int) -> StepPlan:
    """Return what step `step`, counted from 0, trains on.

    An epoch is divided evenly: with all steps but the last one full, the few examples of that one
    would move the weights as much as a whole batch. Pairs 2k, 2k + 1 stay together where batches
    are even.
    """
    count = steps_per_epoch(num_examples, batch_size)
    epoch, within = divmod(step, count)
    unit = 1 if batch_size % 2 else 2
    units = -(-num_examples // unit)
    start, stop = (unit * (index * units // count) for index in (within, within + 1))
    return StepPlan(step, epoch, start, min(stop, num_examples))


def share_of_rank(plan: StepPlan, *, rank: int, world_size: int) -> tuple[int, int]:
    """Return the positions (start, stop) of a process; whole pairs 2k, 2k + 1 stay together."""
    pairs = -(-plan.num_examples // 2)
    first, last = rank * pairs // world_size, (rank + 1) * pairs // world_size
    return plan.start + 2 * first, min(plan.start + 2 * last, plan.stop)


def micro_batches(start: int, stop: int, *, size: int) -> Iterator[tuple[int, int]]:
    """Cut positions into micro-batches of at most `size`; 0: a single one."""
    for begin in range(start, stop, size or max(stop - start, 1)):
        yield begin, min(begin + (size or stop - start), stop)


def epoch_order(
    seed: int, epoch: int, num_examples: int, *, blocks: np.ndarray | None = None
) -> np.ndarray:
    """Return the examples in an epoch's order: a permutation (N,) int64.

    Args:
        seed: of the run.
        epoch: from 0.
        num_examples: N.
        blocks: (N,) int64, the block of each example, where blocks can only be read as a whole.
            Their order is drawn first; then the examples of as many blocks as hold WINDOW of them,
            and of two at least, are mixed. None: all are mixed.
    """
    keys = _hash(_key(seed, epoch, "order"), np.arange(num_examples, dtype=np.uint64))
    if blocks is None:
        return _read_only(np.argsort(keys, kind="stable"))
    return _read_only(np.lexsort((keys, _windows(seed, epoch, blocks))))


def _windows(seed: int, epoch: int, blocks: np.ndarray) -> np.ndarray:
    """Return the window (N,) of each example: blocks in random order, some to a window."""
    _, inverse, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    order = epoch_order(int(_key(seed, epoch, "blocks")), epoch, len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    window_of_block = np.empty_like(order)
    window_of_block[order] = before // max(WINDOW, 2 * int(sizes.max(initial=1)))
    windows: np.ndarray = window_of_block[inverse]
    return windows


def uniforms(
    seed: int,
    epoch: int,
    indices: np.ndarray,
    *,
    count: int,
    purpose: str = "augment",
    view: int = 0,
) -> np.ndarray:
    """Return random numbers in [0, 1) of examples.

    Args:
        seed: of the run.
        epoch: from 0.
        indices: (N,), of the examples.
        count: how many numbers each gets.
        purpose: "augment", "drop_path" or any other text: numbers for one are independent of those
            for another.
        view: of several views of one image.

    Returns:
        (N, count) float64.
    """
    key = _key(seed, epoch, purpose)
    if view:
        key = np.uint64(_hash(key, np.array([view], np.uint64))[0])
    per_example = _hash(key, indices.astype(np.uint64))
    bits = _hash(per_example[:, None], np.arange(count, dtype=np.uint64)[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def seed_of_source(seed: int, source: int) -> int:
    """Return the seed of one of several sources, each of which counts its examples from 0."""
    return int(_key(seed, source, "source")) if source else seed


@lru_cache(maxsize=2)
def mixup_shares(seed: int, epoch: int, num_examples: int, *, alpha: float) -> np.ndarray:
    """Return the share that each position of an epoch keeps of itself, equal for the two of a pair.

    Args:
        seed: of the run.
        epoch: from 0.
        num_examples: of an epoch, N.
        alpha: of Beta(alpha, alpha) (arXiv 1710.09412).

    Returns:
        (N,) float32; a last position without a partner keeps all.
    """
    generator = np.random.Generator(np.random.Philox(key=int(_key(seed, epoch, "mixup"))))
    shares = np.repeat(generator.beta(alpha, alpha, size=num_examples // 2), 2)
    return _read_only(np.append(shares, np.ones(num_examples % 2)).astype(np.float32))


@lru_cache(maxsize=2)
def cutmix_boxes(
    seed: int, epoch: int, num_examples: int, *, alpha: float, with_mixup: bool
) -> np.ndarray:
    """Return the box of each position of an epoch that its pair's other image fills.

    Args:
        seed: of the run.
        epoch: from 0.
        num_examples: of an epoch, N.
        alpha: of Beta(alpha, alpha), the share that is kept before the box is cut at the edges.
        with_mixup: whether half of the pairs, drawn evenly, are left to mixup.

    Returns:
        (N, 4) float64 in 0..1: top, left, bottom, right; zeros for no box. Equal for the two of a
        pair.

    Source: arXiv 1905.04899, equation 2.
    """
    generator = np.random.Generator(np.random.Philox(key=int(_key(seed, epoch, "cutmix"))))
    num_pairs = num_examples // 2
    half = np.sqrt(1 - generator.beta(alpha, alpha, size=(num_pairs, 1))) / 2
    centre = generator.random((num_pairs, 2))
    is_cut = (generator.random((num_pairs, 1)) < 0.5) | (not with_mixup)
    corners = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1)
    boxes = np.zeros((num_examples, 4))
    boxes[: 2 * num_pairs] = np.repeat(np.where(is_cut, corners, 0.0), 2, axis=0)
    return _read_only(boxes)


def torch_seed(seed: int, step: int, *, rank: int, micro_batch: int) -> int:
    """Return the seed of dropout in one micro-batch, below 2**63."""
    key = _hash(_key(seed, step, "dropout"), np.array([rank], np.uint64))
    return int(_hash(key, np.array([micro_batch], np.uint64))[0] >> np.uint64(1))


_PURPOSES = {
    "order": 1,
    "augment": 2,
    "mixup": 3,
    "dropout": 4,
    "drop_path": 5,
    "cutmix": 6,
    "blocks": 7,
}


def _key(seed: int, epoch: int, purpose: str) -> np.uint64:
    key = _hash(np.array([seed], np.uint64), np.array([_purpose_number(purpose)], np.uint64))
    return np.uint64(_hash(key, np.array([epoch], np.uint64))[0])


def _purpose_number(purpose: str) -> int:
    """Return the number of a purpose: of the table, else 63 bits of its hash, above all of them."""
    if purpose in _PURPOSES:
        return _PURPOSES[purpose]
    digest = hashlib.sha256(purpose.encode()).digest()
    return int.from_bytes(digest[:8], "big") | 1 << 63


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _hash(key: np.ndarray | np.uint64, counter: np.ndarray) -> np.ndarray:
    """Mix a key and a counter into 64 even bits (SplitMix64: Steele, Lea, Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = key + (counter + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed


def tfds_order(split: str, keys: Sequence[str]) -> np.ndarray:
    """Return the indices (N,) int64 of examples in the order in which TensorFlow Datasets has them.

    Each example has a key; those of a split are sorted by the MD5 of the split's name and the key.
    So VTAB's "first 800 of train" follow from the publisher's files alone.

    Args:
        split: as TensorFlow Datasets calls it, such as "train" or "validation".
        keys: of the N examples: a file's name, or a number as text, by data set.

    Source: TensorFlow Datasets, `core/hashing.py` and `core/shuffle.py`, the same from 1.2.0 to
    4.9.10.
    """
    digests = [hashlib.md5(f"{split}{key}".encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=digests.__getitem__), np.int64)


def share_of(count: int, percent: int) -> int:
    """Return where `[:percent%]` ends among `count` examples: to the nearest, halves to even."""
    return round(percent * count / 100)
