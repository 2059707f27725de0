"""Ideas: English and German words for one thing share a bucket."""

import numpy as np
import pytest

from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.concepts import LONGEST, MOST, of_token, words
from spiritsafe.guard.normal import fold, normalise


@pytest.mark.parametrize(
    ("english", "german"), [("oven", "ofen"), ("thieves", "diebe"), ("mosquitoes", "muecken"), ("lamp", "lampen")]
)
def test_a_word_and_its_translation_share_an_idea(english: str, german: str) -> None:
    assert set(of_token(english.encode())) & set(of_token(german.encode()))


def test_a_star_takes_any_ending_and_a_word_without_one_none() -> None:
    assert of_token(b"mosquito") == of_token(b"mosquitoes") != ()
    assert of_token(b"ofen") != of_token(b"ofenkaese")


def test_near_ideas_are_paired_whatever_stands_between() -> None:
    def ideas(text: str) -> set[int]:
        return {bucket for bucket in ngrams.buckets(text)[0].tolist() if bucket >= 1 << ngrams.BITS}

    near = ideas("mosquitoes xx yy lamp")
    assert near == ideas("lamp zz mosquito")
    assert len(near) > len(ideas("mosquito")) + len(ideas("lamp"))


def test_every_word_of_the_list_is_one_folded_token() -> None:
    assert 1 + max(number for numbers in words().values() for number in numbers) <= MOST
    for word in words():
        plain = word.removesuffix("*")
        assert fold(normalise(plain)) == plain
        assert ngrams.TOKEN.findall(plain.encode()) == [plain.encode()]
        assert "*" not in plain
        assert 2 <= len(plain) <= LONGEST


def test_no_idea_stands_for_an_ordinary_bucket() -> None:
    assert np.max(ngrams.buckets("how do i bake bread in the oven")[0]) < ngrams.WIDTH
