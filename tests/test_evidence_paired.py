"""Paired comparisons, judges that err, equivalence and the bulk bootstrap: limits and invariants."""

import numpy as np
import pytest

from spiritsafe.evidence import (
    JudgeCounts,
    bootstrap_changes,
    compare_paired,
    compare_sums,
    corrected_share,
    equivalence_p,
    least_effect,
    mcnemar,
)


def pairs(a: int, b: int, n: int) -> tuple[list[bool], list[bool]]:
    """Outcomes of n pairs, a of them yes only in the first, b only in the second."""
    return [True] * a + [False] * (n - a), [False] * a + [True] * b + [False] * (n - a - b)


def test_without_clusters_the_test_is_exact_mcnemar() -> None:
    first, second = pairs(15, 4, 100)
    found = compare_paired(first, second)
    assert found.p_value == mcnemar(first, second).p_value
    assert (found.difference, found.only_first, found.only_second, found.units) == (0.11, 15, 4, 100)


def test_swapping_the_two_mirrors_the_interval() -> None:
    first, second = pairs(9, 3, 60)
    one, other = compare_paired(first, second), compare_paired(second, first)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_copies_of_each_prompt_add_no_evidence() -> None:
    first, second = pairs(12, 3, 50)
    alone = compare_paired(first, second)
    copied = compare_paired(first * 4, second * 4, clusters=list(range(50)) * 4)
    assert copied.units == 50
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert copied.p_value == pytest.approx(alone.p_value, abs=0.02)


def test_the_least_effect_is_found_with_the_stated_power() -> None:
    n, share = 400, 0.2
    least, random = least_effect(int(share * n), n), np.random.Generator(np.random.Philox(0))
    table = random.multinomial(n, [(share + least) / 2, (share - least) / 2, 1 - share], 400).tolist()
    power = np.mean([mcnemar(*pairs(a, b, n)).p_value <= 0.05 for a, b, _ in table])
    assert 0.72 <= power <= 0.88


def test_equal_models_are_equivalent_only_with_enough_prompts() -> None:
    few, many = (compare_paired(*pairs(n // 20, n // 20, n)) for n in (40, 4000))
    assert equivalence_p(few, 0.02) > 0.05
    assert equivalence_p(many, 0.02) < 0.05
    with pytest.raises(ValueError, match="positive"):
        equivalence_p(few, 0.0)


def test_a_difference_at_the_margin_is_rarely_called_equivalent() -> None:
    table = np.random.Generator(np.random.Philox(1)).multinomial(400, [0.1, 0.05, 0.85], 400).tolist()
    called = [equivalence_p(compare_paired(*pairs(a, b, 400)), 0.05) <= 0.05 for a, b, _ in table]
    assert np.mean(called) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def some_sums(num: int, shift: float, seed: int) -> tuple[list[float], list[float], list[float]]:
    """Two models' skewed sums over prompts of several lengths, the first larger by `shift` a token."""
    random = np.random.Generator(np.random.Philox(seed))
    weights, common = random.integers(4, 30, num), random.gamma(2, 1, num)
    own = [weights * (common + random.normal(0, 0.3, num)) for _ in range(2)]
    return (own[0] + shift * weights).tolist(), own[1].tolist(), weights.tolist()


def test_sums_of_the_same_values_do_not_differ() -> None:
    first, _, weights = some_sums(30, 0, 0)
    found = compare_sums(first, first, weights, seed=0)
    assert (found.difference, found.low, found.high, found.p_value, found.n) == (0, 0, 0, 1.0, 30)


def test_swapping_two_models_sums_turns_the_sign_and_keeps_the_p_value() -> None:
    first, second, weights = some_sums(30, 0.1, 1)
    one, other = (compare_sums(a, b, weights, seed=3) for a, b in ((first, second), (second, first)))
    assert one.difference == pytest.approx(-other.difference)
    assert one.p_value == other.p_value
    assert one.low < one.difference < one.high


def test_where_two_models_are_alike_one_in_twenty_comparisons_of_sums_rejects() -> None:
    found = [compare_sums(*some_sums(24, 0, seed), seed=seed, resamples=200) for seed in range(400)]
    assert np.mean([f.p_value <= 0.05 for f in found]) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 400))
    assert np.mean([not f.low <= 0 <= f.high for f in found]) < 0.1


def test_the_least_difference_of_sums_is_found_with_the_stated_power() -> None:
    least = np.median([compare_sums(*some_sums(40, 0, seed), seed=0, resamples=50).least_effect for seed in range(40)])
    found = [compare_sums(*some_sums(40, float(least), seed), seed=seed, resamples=50) for seed in range(300)]
    assert 0.7 <= np.mean([f.p_value <= 0.05 for f in found]) <= 0.9


def test_a_perfect_judge_changes_nothing() -> None:
    found = corrected_share(30, 100, JudgeCounts(10**6, 10**6, 10**6, 10**6))
    assert found is not None
    assert found.value == pytest.approx(0.3)


def test_a_judge_that_says_nothing_is_not_believed() -> None:
    assert corrected_share(30, 100, JudgeCounts(50, 100, 52, 100)) is None
    assert corrected_share(30, 100, JudgeCounts(4, 5, 4, 5)) is None


def test_a_worse_known_judge_makes_a_wider_interval() -> None:
    few, many = (corrected_share(30, 100, JudgeCounts(8 * k, 10 * k, 9 * k, 10 * k)) for k in (5, 500))
    assert few is not None
    assert many is not None
    assert few.high - few.low > many.high - many.low


@pytest.mark.parametrize("clustered", [False, True])
def test_the_bulk_bootstrap_agrees_with_the_plain_one(clustered: bool) -> None:
    random = np.random.Generator(np.random.Philox(3))
    off, on, categories = random.random(600) < 0.3, random.random(600) < 0.1, random.integers(0, 3, 600)
    clusters = random.integers(0, 60, 600) if clustered else np.arange(600)
    found = bootstrap_changes(off, on, categories, clusters, draws=4000)
    groups = [np.flatnonzero(clusters == c) for c in np.unique(clusters)]
    plain = []
    for _ in range(1500):
        drawn = np.concatenate([groups[i] for i in random.integers(0, len(groups), len(groups))])
        kept = drawn[categories[drawn] == 0]
        plain.append((on[kept].astype(float) - off[kept]).mean())
    assert (found[0].low, found[0].high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)
    assert found[0].difference == pytest.approx((on[categories == 0].astype(float) - off[categories == 0]).mean())
