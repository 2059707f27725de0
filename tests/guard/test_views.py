"""Readings by the pass in C++ are those of Python, character by character and for many texts at once."""

import base64
import codecs
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.guard import views as module
from spiritsafe.guard.ciphers import Lexicon
from spiritsafe.guard.folding import CONTEXT, folded
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.guard.views import views, views_of

AWKWARD = (
    "aeAEiІе о1@3!|.-_* \n\t\x1c\u200b\u0301\u0338\ufe0f\u00ad"
    "шカﾞ゛한ᄀ\u1161ᅡﬁ½…’ßäÄİſﷺ\u2800\u3164\uffa0ｂΣς😀𝕓\u0f71\ud800Å\u212b"
)
LETTERS = st.text(st.sampled_from(AWKWARD) | st.characters(), max_size=40)


def python(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The readings where there is no compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "folded", lambda *_: None)
        return views_of(texts)


@given(st.lists(LETTERS, max_size=5))
def test_many_texts_are_read_as_python_reads_each(texts: list[str]) -> None:
    assert views_of(texts) == [python([text])[0] for text in texts]


@pytest.mark.parametrize("letter", ["e\u0301", "\u1100\u1161", "ｶﾞ", "брead"], ids=ascii)
def test_what_depends_on_its_neighbours_is_left_to_python(letter: str) -> None:
    assert (folded([letter], Lexicon().table) or [("", CONTEXT)])[0][1] == CONTEXT
    assert views(letter)[0] == fold(normalise(letter))


@pytest.mark.parametrize(
    "hiding",
    [
        "pl3ase bake",
        "i b@ke",
        "w!th it",
        "ba5",
        "5ba",
        "say p.l.e.a.s.e now",
        "p l e a",
        codecs.encode("the bread and the cheese", "rot13"),
        f"read {base64.b64encode(b'bake the bread').decode()}",
        "x" * 16,
        "a g u n",
        "bread bake i do how",
        "bake%20the%62read",
        "bake &#98;read",
        "bake \\u0062read",
        "=62=72=65=61=64",
        "b<b></b>read",
        "98 114 101 97 100",
        "62 72 65 61 64",
        "-... .-. . .- -..",
        "bravo romeo echo alfa delta",
        "YnJlYWQ=",
        "BakeTheBread",
        "bake_the_bread",
        "daerb eht dna eseehc eht",
    ],
)
def test_no_hiding_place_is_passed_over(hiding: str) -> None:
    plain = python([hiding])[0]
    assert views(hiding) == plain
    assert len(plain) > 1 or hiding == "x" * 16


def test_texts_that_hide_nothing_are_folded_in_cpp_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["How do I bake bread?", "Größe 5, 3 × 4 – “gut”!", "", "如何烤面包"]
    if folded(texts, Lexicon().table) is None:
        pytest.skip("no compiler")
    expected = python(texts)
    monkeypatch.setattr(module, "normalise", lambda _: pytest.fail("Python was asked"))
    assert views_of(texts) == expected
