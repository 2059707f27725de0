"""Intervals, paired tests, e-values, corrections for many tests.

Every function is pure. Shares are in [0, 1], intervals two-sided at `confidence`. scipy is imported
where it is needed, since importing it takes seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, and the number of independent units behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """A paired comparison of two yes/no outcomes: exact McNemar."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    only_first: int
    only_second: int


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval of a share (JASA 22, 1927). Raises `ValueError` where n is 0.

    For the mean of n values in [0, 1], given by their sum, it is conservative: no such values vary more
    than zeros and ones do.
    """
    if n < 1:
        raise ValueError("a share needs at least one trial")
    z, p = _z(confidence), successes / n
    centre, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Estimate(p, 0.0 if successes == 0 else low, 1.0 if successes == n else high, n)


def clustered_mean(
    sums: Sequence[float],
    weights: Sequence[float],
    *,
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-inf, inf),
) -> Estimate:
    """Ratio of sums over clusters, sum(sums) / sum(weights), with a bootstrap-t interval over clusters.

    One cluster is one prompt: its tokens are not independent. The studentised bootstrap (Efron and
    Tibshirani, 1993, chapter 12) keeps its level at a few dozen skewed clusters, where percentiles do not;
    with heavy tails (lognormal, sigma 1) it covers 91 % instead of 95 %. `bounds` are those of the quantity.
    """
    s, w = np.asarray(sums, float), np.asarray(weights, float)
    value, error = ratio(s, w)
    if len(s) < 2 or error == 0:
        return Estimate(value, value, value, len(s))
    pick = np.random.Generator(np.random.Philox(seed)).integers(0, len(s), (resamples, len(s)))
    drawn, errors = ratios(s[pick], w[pick])
    # draws of equal clusters have no error but for rounding, by which nothing may be divided
    t = np.divide(drawn - value, errors, out=np.zeros_like(drawn), where=errors > 1e-9 * error)
    low_t, high_t = np.quantile(t, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = value - high_t * error, value - low_t * error
    return Estimate(value, max(bounds[0], low), min(bounds[1], high), len(s))


def mcnemar(first: Sequence[bool], second: Sequence[bool], *, confidence: float = 0.95) -> Paired:
    """Exact McNemar test that two outcomes on the same prompts are equally frequent.

    The interval of the difference (first - second) is Newcombe's score interval for paired shares
    (Statistics in Medicine 17, 1998, method 10).
    """
    from scipy.stats import binomtest

    if len(first) != len(second) or not first:
        raise ValueError("McNemar needs two equally long, non-empty lists")
    a = sum(x and not y for x, y in zip(first, second, strict=True))
    b = sum(y and not x for x, y in zip(first, second, strict=True))
    p = float(binomtest(a, a + b).pvalue) if a + b else 1.0
    low, high = _newcombe(first, second, confidence)
    return Paired((a - b) / len(first), low, high, p, len(first), a, b)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given (Scand. J. Statist. 6, 1979)."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def conformal_p(value: float, calibration: Sequence[float]) -> float:
    """Share of exchangeable values at least as large, the judged one included: never below 1/(N+1)."""
    return (1 + sum(c >= value for c in calibration)) / (len(calibration) + 1)


def betting_e_process(u: Sequence[float], *, cap: float = 0.9) -> Array:
    """Wealth after each prompt of a bet that ranks `u` in [0, 1] exceed their null mean 1/2; shape (n,).

    A non-negative martingale under the null (Waudby-Smith and Ramdas, arXiv 2010.09686): its running
    maximum exceeds 1/a with probability at most a. Stakes are predictable (aGRAPA: mean over variance
    of what was seen, one prior observation of variance 1/3), never negative, at most `cap`.
    """
    gains = 2 * np.asarray(u, float) - 1
    wealth, total, squares, path = 1.0, 0.0, 1 / 3, []
    for count, gain in enumerate(gains, 1):
        mean = total / count
        stake = min(cap, max(0.0, mean / (squares / count + 1e-12)))
        wealth *= 1 + stake * gain
        total, squares = total + gain, squares + gain * gain
        path.append(wealth)
    return np.asarray(path)


def uniformity_p(p_values: Sequence[float]) -> float:
    """Kolmogorov-Smirnov p-value that p-values are uniform on [0, 1], two-sided."""
    from scipy.stats import kstest

    return float(kstest(list(p_values), "uniform").pvalue)


def _z(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + confidence) / 2)


def ratio(s: Array, w: Array) -> tuple[float, float]:
    """sum(s) / sum(w) over n clusters, and its standard error by the delta method."""
    values, errors = ratios(s[None], w[None])
    return float(values[0]), float(errors[0])


def ratios(s: Array, w: Array) -> tuple[Array, Array]:
    """`ratio` of each row of (R, n)."""
    n = s.shape[1]
    total = w.sum(1)
    value = s.sum(1) / total
    residual = s - value[:, None] * w
    return value, np.sqrt(n / max(n - 1, 1) * (residual**2).sum(1)) / total


def _newcombe(first: Sequence[bool], second: Sequence[bool], confidence: float) -> tuple[float, float]:
    n, x, y = len(first), np.asarray(first, float), np.asarray(second, float)
    a, b = wilson(int(x.sum()), n, confidence=confidence), wilson(int(y.sum()), n, confidence=confidence)
    spread = float(x.std() * y.std())
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    if covariance > 0:  # method 10's continuity correction: else outcomes that all agree had no interval
        covariance = max(covariance - 1 / (2 * n), 0.0)
    phi = covariance / spread if spread else 0.0
    below = (a.value - a.low) ** 2 - 2 * phi * (a.value - a.low) * (b.high - b.value) + (b.high - b.value) ** 2
    above = (a.high - a.value) ** 2 - 2 * phi * (a.high - a.value) * (b.value - b.low) + (b.value - b.low) ** 2
    d = a.value - b.value
    return max(-1.0, d - sqrt(max(below, 0.0))), min(1.0, d + sqrt(max(above, 0.0)))
