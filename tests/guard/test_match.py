"""Many patterns at once."""

import time
from importlib import util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.guard import match
from spiritsafe.guard.match import matcher, of_pattern, of_phrase
from spiritsafe.guard.normal import fold, normalise

PHRASES = ("brie", "*käse", "cream cheese*", "hart*käse", "c++", "сыр")
EXPRESSIONS = (*(of_phrase(phrase) for phrase in PHRASES), of_pattern(r"\bmilch\b.{0,9}\blöffel\b"))
TEXTS = {
    "A slice of BRIE, please": (0,),
    "briefly": (),
    "Bergkäse": (1,),
    "bergkaese": (1,),
    "cream cheeses": (2,),
    "Hartkäse": (1, 3),
    "Hart gekochter Käse": (1,),
    "I write c++": (4,),
    "хороший сыр": (5,),
    "Milch mit Löffel": (6,),
    "Milch, sehr viel davon, ohne Löffel": (),
    "": (),
}
needs_hyperscan = pytest.mark.skipif(not util.find_spec("hyperscan"), reason="hyperscan is not installed")


def folded(text: str) -> str:
    """A text as rules see it."""
    return fold(normalise(text))


@pytest.mark.parametrize("text", TEXTS)
def test_whole_words_are_found_in_any_spelling(text: str) -> None:
    assert match._Alternatives(EXPRESSIONS).find(folded(text)) == TEXTS[text]
    assert matcher(EXPRESSIONS).find(folded(text)) == TEXTS[text]


@needs_hyperscan
@given(st.text(alphabet="abcäöük +\ncheseri", max_size=60))
def test_the_automaton_finds_what_re_finds(text: str) -> None:
    seen = folded(text)
    assert match._Automaton(EXPRESSIONS).find(seen) == match._Alternatives(EXPRESSIONS).find(seen)


def test_no_patterns_find_nothing() -> None:
    assert matcher(()).find("anything") == ()


@pytest.mark.parametrize("pattern", ["(?=a)b", "(?<!a)b", r"(a)\1", "(?P<x>a)(?P=x)"])
def test_what_no_automaton_can_do_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="looks around or back"):
        of_pattern(pattern)


@needs_hyperscan
def test_the_automaton_takes_time_linear_in_a_hostile_text() -> None:
    found = matcher(tuple(of_pattern(rf"\bwithout\b.{{0,60}}\bword{i}\b") for i in range(20)))
    started_s = time.perf_counter()
    found.find("without words " * 70_000)
    assert time.perf_counter() - started_s < 10
