"""Equivalence keeps its level at the margin, finds equal models, and the jackknife covers what it claims."""

import numpy as np
import pytest

from spiritsafe.evidence import clustered_mean, equivalent_sums, jackknife_error, jackknife_values

Sums = tuple[list[float], list[float], list[float]]


def sums(num: int, shift: float, seed: int, *, skewed: bool) -> Sums:
    """Two models' sums over prompts of several lengths; the first is larger by `shift` a token, on average."""
    random = np.random.Generator(np.random.Philox(seed))
    weights = random.integers(4, 30, num).astype(float)
    noise = random.gamma(1.0, 0.2, num) - 0.2 if skewed else random.normal(0, 0.2, num)
    common = random.gamma(2, 1, num)
    return (weights * (common + shift + noise)).tolist(), (weights * common).tolist(), weights.tolist()


SHORT = pytest.mark.xfail(strict=True, reason="8 %: of 20 prompts with exponential differences the long tail is unseen")


@pytest.mark.parametrize(
    ("num", "skewed", "side"),
    [
        *[(20, False, 1), (60, True, -1)],
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((20, False, -1), (60, False, 1), (60, False, -1), (60, True, 1), (20, True, -1))
        ),
        pytest.param(20, True, 1, marks=[SHORT, pytest.mark.slow]),
    ],
)
def test_a_difference_at_the_margin_is_called_equivalent_at_most_one_time_in_twenty(
    num: int, skewed: bool, side: int
) -> None:
    found = [
        equivalent_sums(*sums(num, side * 0.1, seed, skewed=skewed), margin=0.1, seed=seed, resamples=499)
        for seed in range(600)
    ]
    assert np.mean([p <= 0.05 for p in found]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_equal_models_are_called_equivalent_more_often_the_more_prompts_there_are() -> None:
    power = [
        np.mean(
            [
                equivalent_sums(*sums(num, 0, seed, skewed=False), margin=0.1, seed=seed, resamples=499) <= 0.05
                for seed in range(100)
            ]
        )
        for num in (10, 30, 90)
    ]
    assert power == sorted(power)
    assert power[0] < 0.6
    assert power[-1] > 0.9


def test_a_perfect_copy_is_equivalent_and_a_margin_must_be_positive() -> None:
    first, _, weights = sums(20, 0, 0, skewed=False)
    assert equivalent_sums(first, first, weights, margin=0.01, seed=0, resamples=999) == pytest.approx(1e-3)
    assert equivalent_sums(first[:1], first[:1], weights[:1], margin=0.01, seed=0) == 1.0
    with pytest.raises(ValueError, match="positive"):
        equivalent_sums(first, first, weights, margin=0.0, seed=0)


def test_a_constant_difference_is_equivalent_only_within_the_margin() -> None:
    weights = [2.0] * 12
    moved = [2 * 0.3] * 12
    assert equivalent_sums(moved, [0.0] * 12, weights, margin=0.31, seed=0) < 0.05
    assert equivalent_sums(moved, [0.0] * 12, weights, margin=0.29, seed=0) > 0.99


def test_swapping_the_two_keeps_the_answer() -> None:
    first, second, weights = sums(30, 0.05, 4, skewed=False)
    one, other = (equivalent_sums(a, b, weights, margin=0.1, seed=1) for a, b in ((first, second), (second, first)))
    assert one == pytest.approx(other, rel=0.2)


def test_the_jackknife_of_a_mean_is_the_mean_with_its_own_error() -> None:
    values = np.random.Generator(np.random.Philox(5)).gamma(1, 1, 40)
    left_out = [(values.sum() - v) / 39 for v in values]
    found = jackknife_values(float(values.mean()), left_out)
    assert found == pytest.approx(values.tolist())
    assert jackknife_error(found) == pytest.approx(values.std(ddof=1) / np.sqrt(40))


def distinct_share(rows: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> float:
    return len(np.unique(rows)) / rows.size


def test_the_jackknifes_interval_covers_the_expected_share_of_distinct_words() -> None:
    """Words of 40 prompts, 30 each, drawn by Zipf's law: what another draw of prompts would give on average."""
    random = np.random.Generator(np.random.Philox(6))
    chances = 1 / np.arange(1, 801)
    rows = random.choice(800, (900, 40, 30), p=chances / chances.sum())
    expected = np.mean([distinct_share(r) for r in rows[:600]])
    hits = []
    for r in rows[600:]:
        left_out = [distinct_share(np.delete(r, i, axis=0)) for i in range(40)]
        values = jackknife_values(distinct_share(r), left_out)
        found = clustered_mean(values, [1.0] * 40, seed=0, resamples=300)
        hits.append(found.low <= expected <= found.high)
    assert np.mean(hits) >= 0.93
