"""Equivalence of measured values on the same prompts, and per-prompt values of a statistic of a whole corpus.

Both are approximate: levels and coverage are simulated in tests/test_evidence_equivalence.py.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from spiritsafe.evidence.classic import ratio, ratios


def equivalent_sums(
    first: Sequence[float],
    second: Sequence[float],
    weights: Sequence[float],
    *,
    margin: float,
    seed: int,
    resamples: int = 9999,
) -> float:
    """p-value that two models' means, sums / sum(weights), differ by less than `margin`, prompt by prompt.

    Two one-sided tests (TOST, Schuirmann 1987). Each takes the larger p-value of Student's t with n - 1 degrees of
    freedom and of the studentised bootstrap over prompts, which sees skew; of 20 prompts with exponential differences
    the level 0.05 is 0.08. Never below 1 / (resamples + 1); 1
    for fewer than two prompts. Raises `ValueError` where the margin is not positive.
    """
    if margin <= 0:
        raise ValueError("an equivalence margin must be positive")
    changes, w = np.asarray(first, float) - np.asarray(second, float), np.asarray(weights, float)
    n = len(w)
    if n < 2:
        return 1.0
    value, error = ratio(changes, w)
    if error == 0:
        return 1 / (resamples + 1) if abs(value) < margin else 1.0
    from scipy.stats import t as student

    pick = np.random.Generator(np.random.Philox(seed)).integers(0, n, (resamples, n))
    drawn, errors = ratios(changes[pick], w[pick])
    t = np.divide(drawn - value, errors, out=np.zeros_like(drawn), where=errors > 0)
    below, above = (value - margin) / error, (value + margin) / error
    by_draws = max((1 + int((t <= below).sum())), (1 + int((t >= above).sum()))) / (resamples + 1)
    by_student = max(float(student.cdf(below, n - 1)), float(student.sf(above, n - 1)))
    return max(by_draws, by_student)


def jackknife_values(whole: float, left_out: Sequence[float]) -> list[float]:
    """A value for each prompt, so that their mean is the statistic `whole` and their spread gives its jackknife error.

    `left_out` holds the statistic without each prompt. For what is no mean over prompts (distinct n-grams, calibration
    error): Tukey's pseudo-values (Ann. Math. Stat. 29, 1958), moved so that their mean is not changed. The jackknife
    overstates the variance on average (Efron and Stein, Ann. Statist. 9, 1981).
    """
    without = np.asarray(left_out, float)
    return [float(v) for v in whole + (len(without) - 1) * (without.mean() - without)]


def jackknife_error(values: Sequence[float]) -> float:
    """The standard error of the mean of `jackknife_values`."""
    return float(np.std(values, ddof=1)) / sqrt(len(values))
