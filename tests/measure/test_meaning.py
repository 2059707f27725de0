"""Semantic entropy and self-consistency: their limits, and what they make of texts."""

from collections.abc import Sequence
from math import log
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

from spiritsafe.errors import MissingExtra
from spiritsafe.measure import meaning
from spiritsafe.measure.drift.texts import grams
from spiritsafe.measure.meaning import (
    Likeness,
    entropy,
    inconsistency,
    likeness,
    meanings,
    semantic_entropy,
)
from tests.weights import at_hand

WIDTH = 4096


def by_words(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (N, 4096) of hashed words and word pairs; an empty text has a direction of its own."""
    found = np.zeros((len(texts), WIDTH))
    for row, text in zip(found, texts, strict=True):
        for gram in [*grams(text, 1), *grams(text, 2)] or [("",)]:
            row[crc32(" ".join(gram).encode()) % WIDTH] += 1
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), float)


WORDS = Likeness("words", by_words, 0.5, "hears words")
SAME = ["Copper is a metal."] * 5
DIFFERENT = ["Copper is a metal.", "Ask your mother.", "I had soup today.", "Seven, probably.", "Blue whales sing."]


def test_answers_that_all_agree_have_no_entropy() -> None:
    assert semantic_entropy(by_words(SAME), 0.5) == 0.0
    assert [entropy(texts, WORDS) for texts in (SAME, [""] * 3)] == [0.0, 0.0]


def test_answers_that_all_differ_have_the_entropy_of_their_number() -> None:
    assert semantic_entropy(np.eye(7), 0.8) == pytest.approx(log(7))
    assert entropy(DIFFERENT, WORDS) == pytest.approx(log(5))


def test_two_meanings_of_equal_weight_are_one_bit() -> None:
    vectors = np.eye(2)[[0, 1, 0, 1]]
    assert meanings(vectors, 0.8) == [0, 1, 0, 1]
    assert semantic_entropy(vectors, 0.8) == pytest.approx(log(2))


def test_a_stricter_likeness_never_lowers_the_entropy_of_two_groups() -> None:
    vectors = by_words(["copper is a metal", "copper is a soft metal", "ask your mother", "ask your own mother"])
    found = [semantic_entropy(vectors, same) for same in (0.01, 0.5, 0.999)]
    assert found == pytest.approx([log(2), log(2), log(4)])


def test_agreeing_answers_are_consistent_and_others_are_not() -> None:
    assert inconsistency(DIFFERENT, WORDS) == pytest.approx(1.0, abs=0.25)
    assert inconsistency(SAME, WORDS) == pytest.approx(0.0)


def test_a_sentence_that_no_other_answer_supports_raises_inconsistency() -> None:
    plain = ["Copper is a metal. It is red."] * 4
    odd = [*plain[:3], "Copper is a metal. Napoleon discovered it twice."]
    assert inconsistency(plain, WORDS) < inconsistency(odd, WORDS) < 0.5


def test_the_order_of_sentences_does_not_matter() -> None:
    turned = ["Copper is a metal. It is red.", "It is red. Copper is a metal."]
    assert inconsistency(turned, WORDS) == pytest.approx(0.0)


def test_without_the_encoder_s_library_there_is_an_error_and_no_other_likeness(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MiniLM" in likeness().name
    monkeypatch.setattr(meaning, "missing", lambda: "tokenizers")
    with pytest.raises(MissingExtra, match=r"tokenizers: is not installed; pip install 'spiritsafe\[guard\]'"):
        likeness()


@pytest.mark.skipif(not at_hand(), reason="needs the encoders' weights: python -m spiritsafe.models.encoder")
def test_the_encoder_hears_one_meaning_in_other_words() -> None:
    by = likeness()
    assert entropy(["The cat sleeps on the sofa.", "The cat is sleeping on the couch."], by) == 0.0
    assert entropy(DIFFERENT, by) == pytest.approx(log(5))
