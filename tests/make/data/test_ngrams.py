"""Texts are compared without what does not matter: width, case, invisible signs, spelling of numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.checks.words import normal, tokens
from spiritsafe.make.data.ngrams import shingles, tokenise, wholes, windows


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Straße GROẞ", "STRASSE gross"),
        ("ﬁne co\u00adop", "fine coop"),
        ("costs 1,000.50", "costs ١٠٠٠.5".replace("١٠٠٠", "1000")),
        ("１２３", "123"),
        ("1.0 and 2.50", "1 and 2.5"),
        ("cafe\u0301", "café"),
    ],
)
def test_equal_texts_in_other_clothes_have_equal_tokens(first: str, second: str) -> None:
    assert tokens(first) == tokens(second)


def test_different_numbers_stay_different() -> None:
    assert len({tuple(tokens(t)) for t in ("1.5", "15", "1 5", "150", "1.05")}) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("这是GPT测试。", ["这", "是", "gpt", "测", "试"]),
        ("東京へ行く", ["東", "京", "へ", "行", "く"]),
        ("हिन्दी है।", ["हिन्दी", "है"]),
        ("Don't stop - **now**", ["don", "t", "stop", "now"]),
        ("3 * 4 is not 3+4", ["3", "*", "4", "is", "not", "3", "+", "4"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_a_token_is_a_word_or_a_character_where_no_spaces_are_written(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_symbols_count_where_wanted() -> None:
    assert tokens("f(x) != 2", symbols=True) == ["f", "(", "x", ")", "!", "=", "2"]


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normal(text)
    assert tokens(once, symbols=True) == tokens(text, symbols=True)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), max_size=6), st.integers(1, 4))
def test_hashed_n_grams_are_equal_exactly_where_the_n_grams_are(texts: list[str], n: int) -> None:
    grams = [tuple(t.split()[i : i + n]) for t in texts for i in range(len(t.split()) - n + 1)]
    found = windows(tokenise(texts), n)
    assert len(found.hashes) == len(grams)
    assert len({*zip(found.hashes.tolist(), grams, strict=True)}) == len(set(grams)) == len({*found.hashes.tolist()})
    assert found.owners.tolist() == [i for i, t in enumerate(texts) for _ in range(len(t.split()) - n + 1)]


def test_every_text_has_shingles_and_a_short_one_its_whole() -> None:
    found = shingles(tokenise(["a b c d", "a b", "", "a b", "b a"]), 3)
    assert np.bincount(found.owners).tolist() == [2, 1, 1, 1, 1]
    short = found.hashes[2:].tolist()
    assert short[0] == short[2]
    assert len(set(short)) == 3


def test_a_whole_text_hashes_like_its_only_n_gram() -> None:
    theirs = tokenise(["x y z"])
    assert wholes(theirs, 4)[0] == windows(theirs, 3).hashes[0]
    assert wholes(theirs, 3)[0] == 0
