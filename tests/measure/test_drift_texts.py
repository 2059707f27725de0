"""Variety: distinct n-grams and what is left of the original's tail."""

import numpy as np
import pytest

from spiritsafe.measure.drift.texts import coverage, distinct, grams

ONE = [["the cat sat", "the dog ran"], ["a bird sang", "a bird sang"]]


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def test_words_are_compared_without_case_and_marks() -> None:
    assert grams("The cat, THE CAT!", 2) == [("the", "cat"), ("cat", "the"), ("the", "cat")]
    assert grams("one", 2) == []


def test_distinct_n_is_the_share_of_all_ngrams_that_differ() -> None:
    assert mean(distinct(ONE, 1)) == pytest.approx(8 / 12)
    assert mean(distinct(ONE, 2)) == pytest.approx(6 / 8)
    assert mean(distinct([["a b"], ["c d"]], 1)) == pytest.approx(1.0)


def test_a_model_that_always_says_the_same_has_little_variety() -> None:
    same = [["the cat sat on the mat"] * 4 for _ in range(10)]
    assert mean(distinct(same, 2)) == pytest.approx(5 / 200)


def test_each_prompts_jackknife_value_is_that_of_leaving_it_out() -> None:
    values = distinct(ONE, 1)
    without = [3 / 6, 5 / 6]  # three distinct words of six in the second alone, five of six in the first alone
    assert values[0] - values[1] == pytest.approx(without[1] - without[0])


def test_the_same_answers_cover_the_whole_tail_and_others_none() -> None:
    assert mean(coverage(ONE, ONE, n=1, most=1)) == pytest.approx(1.0)
    assert mean(coverage(ONE, [["x y z"], ["x"]], n=1, most=1)) == 0.0


def test_only_what_is_rare_in_the_original_counts_as_its_tail() -> None:
    answers = [["the cat"], ["a bird"]]
    assert mean(coverage(ONE, answers, n=1, most=1)) == pytest.approx(1 / 4)  # cat, of cat sat dog ran
    assert mean(coverage(ONE, answers, n=1, most=2)) == pytest.approx(4 / 8)  # and the, a, bird, of eight


def brute(original: list[list[str]], answers: list[list[str]], most: int) -> list[float]:
    """Coverage without each prompt by counting anew, rarity as in the whole."""
    words = [w for texts in original for text in texts for w in text.split()]
    rare = {w for w in words if words.count(w) <= most}
    found = []
    for out in range(len(original)):
        kept = rare & {w for i, ts in enumerate(original) if i != out for t in ts for w in t.split()}
        said = {w for i, ts in enumerate(answers) if i != out for t in ts for w in t.split()}
        found.append(len(kept & said) / len(kept))
    return found


def test_coverage_without_a_prompt_is_what_counting_anew_gives() -> None:
    random = np.random.Generator(np.random.Philox(1))
    texts = [[[" ".join(f"w{i}" for i in random.zipf(1.5, 9) % 60) for _ in range(2)] for _ in range(6)] for _ in "ab"]
    values, without = coverage(texts[0], texts[1], n=1, most=2), brute(texts[0], texts[1], 2)
    moved = np.asarray(values) - np.mean(values)
    assert moved.tolist() == pytest.approx((5 * (np.mean(without) - np.asarray(without))).tolist())
