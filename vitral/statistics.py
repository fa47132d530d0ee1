"""Confidence intervals and tests of scores."""

import math
from collections.abc import Sequence

import numpy as np

from vitral.errors import RequestError

_NORMAL_95 = 1.959963984540054


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion.

    Source: Wilson, JASA 22 (1927), pages 209 to 212.
    """
    z2 = _NORMAL_95**2
    centre = (right + z2 / 2) / (count + z2)
    half = _NORMAL_95 / (count + z2) * math.sqrt(right * (count - right) / count + z2 / 4)
    return (max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Return the mean of scores over seeds and its 95 % interval by Student's t.

    It is the interval of the mean over infinitely many draws of the support. It does not include
    the uncertainty from a limited number of test images, since all seeds share the test images (for
    that, see `vitral.statistics.wilson_interval`).

    Args:
        values: one score per seed; the interval is not clipped to 0..1.

    Returns:
        (mean, low, high); low and high are None for a single value, whose spread is unknown.

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
    """Return the t for which Student's distribution has `coverage` within (-t, t).

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


def binomial_tail(right: int, count: int, share: float) -> float:
    """Return the probability of at least `right` hits in `count` trials of probability `share`."""
    if right <= 0 or share >= 1:
        return 1.0
    logs = [
        math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
        + hits * math.log(share) + (count - hits) * math.log1p(-share)
        for hits in range(right, count + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))
