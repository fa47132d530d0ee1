"""Which examples a few-shot score learns from, and what several draws say together."""

import math
from collections.abc import Sequence

import numpy as np

from vitral.errors import RequestError
from vitral.evaluate.arrays import check_labels


def draw_support(labels: np.ndarray, *, shots: int, seed: int, num_classes: int) -> np.ndarray:
    """Draw the same number of examples of each class, as big_vision does.

    One generator a seed permutes the examples of each class in turn, and the first of each are
    taken; so the examples of fewer shots are among those of more, for the same seed.

    Args:
        labels: (N,) in 0..num_classes - 1.
        shots: examples a class.
        seed: of `numpy.random.default_rng`, 0 or more.
        num_classes: K.

    Returns:
        Indices (K * shots,), class by class.

    Raises:
        RequestError: a class has fewer examples, `shots` is below 1, `seed` below 0, or labels are
            not one whole number an example.
        DataError: a label is out of range.

    Source: big_vision, evaluators/fewshot_lsr.py.
    """
    labels = check_labels("labels", labels, num_classes=num_classes)
    if shots < 1:
        raise RequestError(f"shots={shots} must be 1 or more")
    if seed < 0:
        raise RequestError(f"seed={seed} must be 0 or more")
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < shots:
        _too_few(counts, shots)
    # Each class's examples in their order, as np.flatnonzero(labels == number) gives them.
    own = np.split(np.argsort(labels, kind="stable"), counts.cumsum()[:-1])
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.permutation(indices)[:shots] for indices in own])


def _too_few(counts: np.ndarray, shots: int) -> None:
    smallest, fewest = int(counts.argmin()), int(counts.min())
    more = int((counts < shots).sum()) - 1
    others = f" (and {more} more classes have too few)" if more else ""
    way_out = f"use shots={fewest} at most" if fewest else "give examples of every class"
    raise RequestError(f"shots={shots}: class {smallest} has {fewest} examples{others}: {way_out}")


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean of scores over seeds and its 95 % interval by Student's t.

    It says how far the mean over ever more draws of the support may lie. The uncertainty that
    comes from a limited number of test images is another one, and not in it: all seeds share the
    test images (for those, see `vitral.evaluate.score.wilson_interval`).

    Args:
        values: a score a seed; the interval is not cut to 0..1.

    Returns:
        (mean, low, high); low and high are None for a single value, which says nothing of its
        spread.

    Raises:
        RequestError: no values.
    """
    if not len(values):
        raise RequestError("values is empty: give a score a seed")
    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return mean, None, None
    half = t_quantile(len(numbers) - 1) * float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    return mean, mean - half, mean + half


def t_quantile(freedom: int, *, coverage: float = 0.95) -> float:
    """Return the t between whose negative and itself Student's distribution has `coverage`.

    Args:
        freedom: degrees of freedom, 1 or more.
        coverage: of the two-sided interval, above 0 and below 1.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4, solved by
    bisection in the angle atan(t / sqrt(freedom)).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _t_coverage(middle, freedom) < coverage:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _t_coverage(angle: float, freedom: int) -> float:
    """Return the probability of |t| below sqrt(freedom) tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for number in range(1 + is_odd, freedom, 2):
        total += term
        term *= cosine**2 * number / (number + 1)
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total
