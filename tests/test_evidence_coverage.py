"""Every interval covers what it claims: 94 to 96.5 % at nominal 95 %, on average over shares of 0.01 to 0.5.

At one single share the coverage of intervals of counts oscillates: the mean over shares is the criterion.
"""

import numpy as np
import pytest

from spiritsafe.evidence import (
    JudgeCounts,
    clustered_share,
    compare_paired,
    compare_scores,
    corrected_share,
    mean_score,
    wilson,
)
from spiritsafe.evidence.paired import adjusted

SHARES = np.linspace(0.01, 0.5, 30)
# The quick run has the smallest size, where intervals fail first, and one that real evaluations have.
SIZES = [50, *(pytest.param(n, marks=pytest.mark.slow) for n in (100, 200, 1000)), 400]
Z = 1.959964


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize("n", SIZES)
def test_a_shares_interval_covers_it(n: int) -> None:
    random, hits = generator(n), []
    for p in SHARES:
        for k in random.binomial(n, p, 300).tolist():
            found = wilson(k, n)
            hits.append(found.low <= p <= found.high)
    assert 0.94 <= np.mean(hits) <= 0.965


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("less", [0.25, 0.9])
def test_a_paired_differences_interval_covers_it(n: int, less: float) -> None:
    random, hits = generator(n), []
    for p in SHARES:
        q = less * p
        for a, b, _ in random.multinomial(n, [p, q, 1 - p - q], 300).tolist():
            low, high = adjusted(a, b, n, quantile=Z)
            hits.append(low <= p - q <= high)
    assert 0.94 <= np.mean(hits) <= 0.965


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("sensitivity", "specificity", "labels"), [(0.8, 0.9, 100), (0.95, 0.7, 300), (0.7, 0.85, 1000)]
)
def test_a_share_behind_an_imperfect_judge_is_covered(
    n: int, sensitivity: float, specificity: float, labels: int
) -> None:
    random, hits = generator(n + labels), []
    for p in SHARES:
        flagged = random.binomial(n, p * sensitivity + (1 - p) * (1 - specificity), 200)
        judged = random.binomial(labels, sensitivity, 200), random.binomial(labels, specificity, 200)
        for k, se, sp in zip(flagged.tolist(), *(x.tolist() for x in judged), strict=True):
            found = corrected_share(k, n, JudgeCounts(se, labels, sp, labels))
            assert found is not None
            hits.append(found.low <= p <= found.high)
    assert 0.94 <= np.mean(hits) <= 0.965


def clustered_coverage(n: int, num_clusters: int, icc: float) -> float:
    """Coverage of the clustered share: beta-binomial clusters with this intraclass correlation."""
    random, hits = generator(n), []
    names = np.arange(n) % num_clusters
    for p in SHARES[::2]:
        for _ in range(300):
            own = random.beta(p * (1 - icc) / icc, (1 - p) * (1 - icc) / icc, num_clusters)
            found = clustered_share((random.random(n) < own[names]).tolist(), names.tolist())
            hits.append(found.low <= p <= found.high)
    return float(np.mean(hits))


DESIGNS = [(50, 10, 0.1), (100, 20, 0.1)]
LARGER = [(400, 20, 0.1), (400, 80, 0.1), (400, 80, 0.2), (1000, 50, 0.1)]
SHORT = pytest.mark.xfail(strict=True, reason="93 to 94 %: at small shares most clusters hold no event")


@pytest.mark.parametrize(
    ("n", "num_clusters", "icc"),
    [
        *DESIGNS,
        *(pytest.param(*design, marks=pytest.mark.slow) for design in LARGER),
        *(pytest.param(*design, marks=[SHORT, pytest.mark.slow]) for design in ((400, 80, 0.3), (1000, 50, 0.3))),
    ],
)
def test_a_clustered_shares_interval_covers_it(n: int, num_clusters: int, icc: float) -> None:
    assert 0.94 <= clustered_coverage(n, num_clusters, icc) <= 0.965


@pytest.mark.parametrize("icc", [0.1, 0.3])
def test_clusters_taken_for_independent_would_not_be_covered(icc: float) -> None:
    random, hits = generator(1), []
    names = np.arange(400) % 20
    for p in SHARES[::2]:
        for _ in range(30):
            own = random.beta(p * (1 - icc) / icc, (1 - p) * (1 - icc) / icc, 20)
            found = wilson(int((random.random(400) < own[names]).sum()), 400)
            hits.append(found.low <= p <= found.high)
    assert np.mean(hits) < 0.85


def test_clusters_that_do_not_differ_raise_no_more_false_alarms_than_allowed() -> None:
    random, alarms = generator(2), []
    names = (np.arange(200) % 20).tolist()
    for seed in range(200):
        lean = random.choice([0.1, 0.4], 20)[names]  # a cluster leans to one side, to either with equal odds
        first, second = random.random(200) < lean, random.random(200) < random.choice([0.1, 0.4], 20)[names]
        alarms.append(compare_paired(first.tolist(), second.tolist(), clusters=names, seed=seed).p_value <= 0.05)
    assert np.mean(alarms) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize(
    ("n", "some"),
    [
        (50, 0.5),
        (50, 0.02),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((100, 0.9), (50, 0.1), (100, 0.05), (300, 0.02))),
    ],
)
def test_a_mean_of_scores_is_covered_even_where_few_are_not_zero(n: int, some: float) -> None:
    random, hits = generator(n), []
    for seed in range(300):
        scores = np.where(random.random(n) < some, 2.3 * random.beta(2, 2, n), 0.0)
        found = mean_score(scores.tolist(), most=2.3, seed=seed)
        hits.append(found.low <= 1.15 * some <= found.high)
    assert np.mean(hits) >= 0.925  # 0.95 less two standard errors of 300 draws


@pytest.mark.parametrize(("n", "some"), [(50, 0.5), pytest.param(100, 0.05, marks=pytest.mark.slow)])
def test_a_difference_of_scores_that_are_alike_covers_none(n: int, some: float) -> None:
    random, hits = generator(n + 1), []
    for seed in range(300):
        first, second = (np.where(random.random(n) < some, random.beta(2, 2, n), 0.0) for _ in range(2))
        found = compare_scores(first.tolist(), second.tolist(), seed=seed)
        hits.append(found.low <= 0.0 <= found.high)
    assert np.mean(hits) >= 0.925


def test_scores_that_are_all_alike_have_the_interval_of_what_was_missed() -> None:
    found = mean_score([0.0] * 20, most=2.0, seed=0)
    assert (found.value, found.low) == (0.0, 0.0)
    assert (1 - found.high / 2.0) ** 20 == pytest.approx(0.025)
    both = compare_scores([0.0] * 20, [0.0] * 20, most=2.0, seed=0)
    assert both.low == -both.high
    assert 0 < both.least_effect <= 2.0


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_a_mean_of_few_scores_is_covered(n: int) -> None:
    random = generator(n)
    hits = []
    for _ in range(400):
        scores = random.beta(2, 3, n)
        found = mean_score(scores.tolist(), seed=0)
        hits.append(found.low <= 0.4 <= found.high)
    assert np.mean(hits) >= 0.93


def test_two_scores_that_differ_say_little() -> None:
    found = mean_score((0.25, 0.75), seed=0)
    assert (found.low, found.high) == (0.0, 1.0)
    three = mean_score((0.2, 0.4, 0.6), seed=0)
    assert three.low <= 0.0
    assert three.high == pytest.approx(0.897, abs=0.001)
