"""Means of scores between 0 and a known most, and paired differences of them, with or without clusters.

Where nearly all clusters score alike, a bootstrap sees too little of the others: what it cannot have seen widens the
interval, by the exact bound on the share of clusters that score otherwise (Clopper and Pearson 1934), each of which
may be off by the most. Of a few scores a bootstrap draws the same ones again and again (two give no interval at all):
below ten clusters the interval is at least Student's.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from spiritsafe.evidence.classic import Estimate, clustered_mean, ratio
from spiritsafe.evidence.paired import POWER, Difference, compare_sums, per_cluster

Array = NDArray[np.float64]
FEW = 10  # clusters that score otherwise; a bootstrap of more covers what it claims (simulated in the tests)


def mean_score(
    scores: Sequence[float],
    clusters: Sequence[Hashable] = (),
    *,
    most: float = 1.0,
    seed: int,
    confidence: float = 0.95,
) -> Estimate:
    """Mean of scores in [0, most] with a bootstrap-t interval over clusters (each score its own where none are named).

    `n` counts clusters.
    """
    sums, sizes = per_cluster(np.asarray(scores, float), clusters or None)
    found = clustered_mean(sums.tolist(), sizes.tolist(), seed=seed, confidence=confidence, bounds=(0.0, most))
    low, high = _reach(sums / sizes, 0.0, most, confidence)
    few_low, few_high = _of_few(sums, sizes, 0.0, most, confidence)
    return replace(found, low=min(found.low, low, few_low), high=max(found.high, high, few_high))


def compare_scores(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] = (),
    *,
    most: float = 1.0,
    seed: int,
    confidence: float = 0.95,
) -> Difference:
    """Compare two means of scores in [0, most] prompt by prompt (first - second): see `compare_sums`.

    Where all clusters differ alike, `least_effect` is that of one cluster more which differs by the most.
    """
    one, sizes = per_cluster(np.asarray(first, float), clusters or None)
    other, _ = per_cluster(np.asarray(second, float), clusters or None)
    found = compare_sums(one.tolist(), other.tolist(), sizes.tolist(), seed=seed, confidence=confidence)
    low, high = _reach((one - other) / sizes, -most, most, confidence)
    few_low, few_high = _of_few(one - other, sizes, -most, most, confidence)
    found = replace(found, low=min(found.low, low, few_low), high=max(found.high, high, few_high))
    if found.least_effect > 1e-9:
        return found
    reach = NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(POWER)
    return replace(found, least_effect=min(most, reach * most / (len(sizes) + 1)))


def _of_few(sums: Array, sizes: Array, low: float, high: float, confidence: float) -> tuple[float, float]:
    """Student's interval of a mean over fewer than `FEW` clusters that differ; else nowhere."""
    from scipy.stats import t

    n = len(sums)
    if n < 2 or n >= FEW:
        return np.inf, -np.inf
    value, error = ratio(sums, sizes)
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * error
    return max(low, value - half), min(high, value + half)


def _reach(means: Array, low: float, high: float, confidence: float) -> tuple[float, float]:
    """How far the mean may lie from what most clusters score, where fewer than `FEW` do otherwise; else nowhere.

    A side on which nothing lies beyond the common score needs no reach.
    """
    from scipy.stats import beta

    values, counts = np.unique(means.round(9), return_counts=True)
    n, most = len(means), int(counts.max())
    if n - most >= FEW or 2 * most <= n:
        return np.inf, -np.inf
    common = float(values[counts.argmax()])
    share = float(beta.ppf((1 + confidence) / 2, n - most + 1, most))
    return (
        common - share * (common - low) if common > low + 1e-9 else np.inf,
        common + share * (high - common) if common < high - 1e-9 else -np.inf,
    )
