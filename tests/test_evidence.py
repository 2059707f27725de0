"""Intervals cover what they promise, tests keep their level: by theorem where there is one, else by simulation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from spiritsafe.evidence import (
    betting_e_process,
    clustered_mean,
    conformal_p,
    holm,
    mcnemar,
    uniformity_p,
    wilson,
)

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def generator(seed: int = 0) -> np.random.Generator:
    """The tests' own randomness."""
    return np.random.Generator(np.random.Philox(seed))


def table(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two paired lists of outcomes with these counts."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 20), (15, 60), (60, 60), (500, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys_wilson(successes: int, n: int, confidence: float) -> None:
    theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, n, confidence=confidence)
    assert (ours.value, ours.n) == (successes / n, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("p", [0.02, 0.1, 0.3, 0.5])
def test_wilson_covers_a_share_about_95_times_of_100(n: int, p: float) -> None:
    """Exactly computed; counts are whole numbers, so the level swings around 95 %."""
    intervals = [wilson(k, n) for k in range(n + 1)]
    coverage = sum(binom.pmf(k, n, p) for k, i in enumerate(intervals) if i.low <= p <= i.high)
    assert 0.92 <= coverage <= 0.98


def test_a_share_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        wilson(0, 0)


@pytest.mark.parametrize("n", [24, 60])
@pytest.mark.parametrize("kind", ["kl", "agreement"])
def test_a_clustered_mean_covers_the_ratio_of_skewed_clusters(n: int, kind: str) -> None:
    random, trials, hits = generator(n), 500, 0
    for trial in range(trials):
        tokens = random.integers(1, 33, n).astype(float)
        if kind == "kl":
            truth, per_token = 1.0, random.exponential(1.0, n)
        else:
            truth, per_token = 0.75, random.beta(6, 2, n)
        found = clustered_mean((per_token * tokens).tolist(), tokens.tolist(), seed=trial, resamples=400)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / trials <= 0.98


def test_a_clustered_mean_is_the_ratio_of_sums_and_the_same_at_every_call() -> None:
    first, second = (clustered_mean([1.0, 4.0, 2.0], [1, 2, 4], seed=3) for _ in range(2))
    assert first == second
    assert first.value == pytest.approx(1.0)
    assert first.low < first.value < first.high
    assert first.n == 3


def test_clusters_without_spread_have_an_interval_without_width() -> None:
    found = clustered_mean([2.0, 4.0, 6.0], [1, 2, 3], seed=0)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (0, 6), (3, 9), (20, 11)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(a: int, b: int) -> None:
    found = mcnemar(*table(5, a, b, 7))
    expected = binomtest(a, a + b).pvalue if a + b else 1.0
    assert found.p_value == pytest.approx(expected)
    assert (found.only_first, found.only_second, found.n) == (a, b, 12 + a + b)
    assert found.difference == pytest.approx((a - b) / found.n)


def test_mcnemar_turned_round_is_its_mirror() -> None:
    first, second = table(5, 9, 2, 7)
    there, back = mcnemar(first, second), mcnemar(second, first)
    assert (there.low, there.high, there.p_value) == pytest.approx((-back.high, -back.low, back.p_value))


def test_the_paired_interval_is_newcombes_method_10() -> None:
    """The published interval of Bentur et al. (2009): 1, 1, 7, 12 of 21 patients."""
    found = mcnemar(*table(1, 1, 7, 12))
    assert (found.low, found.high) == pytest.approx((-0.507, -0.026), abs=5e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_pairs_that_all_agree_still_have_an_interval(share: float) -> None:
    first = [i < share * 60 for i in range(60)]
    found = mcnemar(first, first)
    assert found.difference == 0
    assert found.low <= -0.02
    assert found.high >= 0.02


@pytest.mark.parametrize("cells", [(0.3, 0.15, 0.05, 0.5), (0.6, 0.1, 0.1, 0.2), (0.02, 0.3, 0.0, 0.68)])
def test_the_paired_interval_covers_the_difference(cells: tuple[float, ...]) -> None:
    tables = generator(1).multinomial(60, cells, size=600)
    found = [mcnemar(*table(*map(int, counts))) for counts in tables]
    hits = sum(f.low <= cells[1] - cells[2] <= f.high for f in found)
    assert 0.92 <= hits / len(found) <= 0.985


def test_mcnemar_needs_pairs() -> None:
    for first, second in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="equally long, non-empty"):
            mcnemar(first, second)


@given(p_lists)
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    """A hypothesis is as significant as the worst intersection that holds it (closure principle)."""
    numbers = range(len(p_values))
    subsets = [s for size in numbers for s in combinations(numbers, size + 1)]
    worst = [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in numbers]
    assert holm(p_values) == pytest.approx(worst)


@given(p_lists)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-12
    by_p = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in by_p] == sorted(adjusted)


def test_holm_of_one_or_no_test_changes_nothing() -> None:
    assert holm([]) == []
    assert holm([0.03]) == [0.03]


@pytest.mark.parametrize("values", [4, 1000])
def test_a_conformal_p_value_is_at_most_a_no_more_often_than_a_also_with_ties(values: int) -> None:
    draws = generator(2).integers(0, values, (4000, 20)).tolist()
    p = np.array([conformal_p(row[0], row[1:]) for row in draws])
    assert p.min() >= 1 / 20
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert (p <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / len(p))


def test_a_conformal_p_value_counts_the_judged_one() -> None:
    assert conformal_p(9, [1, 2, 3]) == 1 / 4
    assert conformal_p(0, [1, 2, 3]) == 1
    assert conformal_p(2, [1, 2, 3]) == 3 / 4


@pytest.mark.parametrize("ranks", ["uniform", "of 11"])
def test_wealth_is_fair_under_the_null_and_its_maximum_rarely_large(ranks: str) -> None:
    random = generator(3)
    u = random.random((3000, 40)) if ranks == "uniform" else random.integers(0, 11, (3000, 40)) / 10
    paths = np.array([betting_e_process(row.tolist()) for row in u])
    final = paths[:, -1]
    assert final.mean() <= 1 + 4 * final.std() / np.sqrt(len(final))
    for alpha in (0.2, 0.05, 0.01):
        assert (paths.max(1) >= 1 / alpha).mean() <= alpha + 3 * np.sqrt(alpha / len(paths))


def test_wealth_is_made_from_high_ranks_and_only_from_them() -> None:
    assert betting_e_process([1.0] * 30)[-1] > 1e6
    assert betting_e_process([0.0] * 30)[-1] == 1
    assert betting_e_process([0.5] * 30).tolist() == [1.0] * 30


def test_a_stake_knows_only_what_was_seen() -> None:
    u = generator(4).random(20)
    for size in (1, 7, 19):
        assert betting_e_process(u[:size].tolist()).tolist() == betting_e_process(u.tolist())[:size].tolist()
    assert betting_e_process([1.0]).tolist() == [1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_wealth_is_never_negative(u: list[float]) -> None:
    assert (betting_e_process(u) > 0).all()


def test_uniform_p_values_look_uniform_and_others_do_not() -> None:
    random = generator(5)
    found = [uniformity_p(random.random(100).tolist()) for _ in range(400)]
    assert 0.02 <= np.mean([p <= 0.05 for p in found]) <= 0.08
    assert uniformity_p((random.random(200) ** 2).tolist()) < 1e-6
