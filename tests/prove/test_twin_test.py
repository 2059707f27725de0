"""The twin-sample test: exact under its null, powerful where a trace is there."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from spiritsafe.evidence import uniformity_p
from spiritsafe.prove.twin_test import Array, covariate_weight, doubled_ranks, exact_p, power, twin_test


def scores(generator: np.random.Generator, n: int, m: int, lift: float = 0.0) -> tuple[Array, Array]:
    """Suspect's and teacher's log-likelihoods; the suspect prefers the served answer by `lift`."""
    teacher = generator.normal(size=(n, m + 1))
    suspect = 0.9 * teacher + generator.normal(scale=0.3, size=(n, m + 1))
    suspect[:, 0] += lift
    return suspect, teacher


def randomised_p(suspect: Array, teacher: Array, uniform: float) -> float:
    """The exact p-value with its atoms spread out: exactly uniform under the null."""
    ranks = doubled_ranks(suspect - covariate_weight(suspect, teacher) * teacher)
    at_least = exact_p(ranks)
    distribution = np.ones(1)
    for row in ranks:
        distribution = np.convolve(distribution, np.bincount(row, minlength=2 * ranks.shape[1] - 1) / ranks.shape[1])
    return at_least - uniform * float(distribution[int(ranks[:, 0].sum())])


def test_the_p_value_is_the_share_of_all_relabellings_at_least_as_extreme() -> None:
    generator = np.random.default_rng(1)
    ranks = doubled_ranks(generator.integers(0, 3, (4, 4)).astype(float))
    sums = [sum(row[j] for row, j in zip(ranks, pick, strict=True)) for pick in product(range(4), repeat=4)]
    observed = ranks[:, 0].sum()
    assert exact_p(ranks) == pytest.approx(np.mean([s >= observed for s in sums]))


def test_one_twin_a_prompt_is_the_sign_test() -> None:
    suspect, teacher = scores(np.random.default_rng(2), 40, 1)
    found = twin_test(suspect, teacher)
    wins = round(sum(found.u))
    assert found.p_value == pytest.approx(binomtest(wins, 40, alternative="greater").pvalue)


def test_p_values_are_uniform_under_the_null() -> None:
    generator = np.random.default_rng(3)
    p = [randomised_p(*scores(generator, 12, 10), generator.random()) for _ in range(1000)]
    assert uniformity_p(p) > 0.001
    reported = np.array([twin_test(*scores(generator, 12, 10)).p_value for _ in range(2000)])
    for alpha in (0.01, 0.05, 0.2):
        assert (reported <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 2000)


def test_frequent_answers_do_not_accuse_a_suspect_that_prefers_them() -> None:
    """Pools of {A, A, A, B} with a suspect that always prefers A; dropping equal twins would accuse it."""
    generator = np.random.default_rng(4)
    kept, dropped = [], []
    for _ in range(400):
        pool = (generator.random((20, 4)) < 0.75).astype(float)
        kept.append(twin_test(pool, np.zeros_like(pool)).p_value)
        wins = [(row[0] > row[1:][row[1:] != row[0]]).mean() for row in pool if (row[1:] != row[0]).any()]
        dropped.append(np.mean(wins))
    assert np.mean(np.array(kept) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(dropped) > 0.6


def test_anytime_p_values_hold_their_level_at_the_worst_stopping_time() -> None:
    generator = np.random.default_rng(5)
    found = [twin_test(*scores(generator, 30, 10)) for _ in range(2000)]
    assert np.mean([t.anytime_p <= 0.05 for t in found]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert np.mean([t.e_value for t in found]) <= 1 + 4 * np.std([t.e_value for t in found]) / np.sqrt(2000)


def test_a_trace_is_found_and_more_logged_answers_find_it_more_surely() -> None:
    found = twin_test(*scores(np.random.default_rng(6), 64, 10, lift=0.3))
    assert found.p_value < 1e-6
    assert found.e_value > 1e3
    points = power(found.u, found.m, (4, 16, 64, 128), alpha=0.01, seed=0)
    assert [p["num_logged"] for p in points] == [4, 16, 64]
    assert points[0]["median_p"] > points[1]["median_p"] > points[2]["median_p"]
    assert points[-1]["median_p"] == pytest.approx(found.p_value, rel=1e-6)


def test_the_covariate_does_not_know_which_answer_was_served() -> None:
    suspect, teacher = scores(np.random.default_rng(7), 10, 5, lift=1.0)
    order = np.random.default_rng(8).permutation(6)
    assert covariate_weight(suspect, teacher) == pytest.approx(covariate_weight(suspect[:, order], teacher[:, order]))


def test_the_covariate_sharpens_the_test() -> None:
    generator, with_it, without = np.random.default_rng(9), [], []
    for _ in range(50):
        suspect, teacher = scores(generator, 20, 10, lift=0.2)
        with_it.append(twin_test(suspect, teacher).z)
        without.append(twin_test(suspect, np.zeros_like(teacher)).z)
    assert np.mean(with_it) > np.mean(without) + 1


def test_equal_answers_say_nothing() -> None:
    found = twin_test(np.ones((5, 4)), np.ones((5, 4)))
    assert (found.p_value, found.mean_u, found.e_value) == (1.0, 0.5, 1.0)


def test_very_small_p_values_do_not_become_zero() -> None:
    suspect = np.tile(np.array([1.0, *np.linspace(-1, 0, 10)]), (400, 1))
    assert twin_test(suspect, np.zeros_like(suspect)).p_value == 1e-300


@pytest.mark.parametrize("shape", [((0, 3), (0, 3)), ((3, 1), (3, 1)), ((3, 2), (3, 3))])
def test_what_is_no_table_of_twins_is_refused(shape: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"m \+ 1"):
        twin_test(np.zeros(shape[0]), np.zeros(shape[1]))
