"""Many patterns at once."""

import time
from importlib import util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.errors import UsageError
from spiritsafe.guard import match
from spiritsafe.guard.match import matcher, of_pattern, of_phrase
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.guard.policy import PolicySource, load_policy

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
POLICY = 'name = "mine"\ndecide = "stages"\nrefusal = "No."\n[rules.food]\npatterns = [\'{pattern}\']\n'
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


REFUSED = {
    "(?=a)b": "looks around",
    "(?<!a)b": "looks around",
    r"(a)\1": "looks back",
    "(?P<x>a)(?P=x)": "looks back",
    "(a)?b(?(1)c|d)": "looks back",
    "(?>ab)c": "atomic group",
    "a++b": "possessive repeat",
    "ba?+": "possessive repeat",
    "(bomb)?": "fits an empty text",
    "a*": "fits an empty text",
    "": "fits an empty text",
    r"\b": "fits an empty text",
    "^$": "fits an empty text",
    "a|": "fits an empty text",
    "x{1,40000}": "too large",
    "(a{1,200}){1,200}": "too large",
    "(?:(?:a{99}){99}){99}": "too large",
    "x{,3}y": "two ways",
    r"\N{DIGIT ONE}": "two ways",
    r"\u0041": "two ways",
    "(?a)b": "two ways",
    "(?iu:b)": "two ways",
    "[[:alpha:]]b": "not a regular expression",
    "(": "not a regular expression",
    r"\p{L}": "not a regular expression",
    r"\Qa\E": "not a regular expression",
    "(?i": "not a regular expression",
    "x{1,99999999999}": "not a regular expression",
}
TAKEN = [
    "bombe?", "(?i)a", "(?i:a)b", "(?x) a  b", "(?P<name>a)b", "(?:ab)+c", "a{2,}", "a{0,60}b", "[^a]b", r"\bab\b",
    r"\d+ \w+\s", "a.{0,99}?b", "ä+b", "a(?#not b)", "^a$", r"\Aab\Z", r"a\.b", r"\\1", "[]a]b", "a|b", r"\x41",
    "(?s-i:a.b)", "[a[b]]", "(?x)ab # b", "(?im)a|x",
]  # fmt: skip


@pytest.mark.parametrize("engine", ["hyperscan", "re"])
@pytest.mark.parametrize("pattern", REFUSED)
def test_what_one_engine_cannot_do_both_refuse(pattern: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "re":
        monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=REFUSED[pattern]):
        of_pattern(pattern)


@needs_hyperscan
@pytest.mark.parametrize("pattern", TAKEN)
def test_what_is_taken_both_engines_find_alike(pattern: str) -> None:
    expressions = (of_pattern(pattern),)
    automaton, alternatives = match._Automaton(expressions), match._Alternatives(expressions)
    for text in (
        "ab",
        "a b",
        "aab",
        "b",
        "a.b",
        "bombe",
        "aaa",
        "1 a ",
        "aeb",
        "xab x",
        "a" * 70 + "b",
        "\\1",
        "]b",
        "",
    ):
        assert automaton.find(text) == alternatives.find(text), text


@pytest.mark.parametrize("phrase", ["", " ", "*", "* *", "\u200b", "a" * 20_000])
def test_a_phrase_without_a_word_is_refused(phrase: str) -> None:
    with pytest.raises(ValueError, match=r"holds no word|are the most"):
        of_phrase(phrase)


@pytest.mark.parametrize("pattern", ["(bomb)?", "(?>a)b", "a++", "(?(1)a|b)", "x{1,40000}"])
def test_a_policy_names_the_rule_and_the_last_valid_one_stays(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(POLICY.format(pattern="cheese"))
    source = PolicySource(str(path))
    path.write_text(POLICY.format(pattern=pattern) + "# longer")
    with pytest.raises(UsageError, match=r"mine\.toml: rules\.food\.patterns: "):
        load_policy(str(path))
    assert source.current().rules["food"].patterns == ("cheese",)


@needs_hyperscan
def test_a_planted_database_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_CACHE", str(tmp_path))
    assert match._Automaton(("brie",)).find("brie") == (0,)
    (kept,) = (tmp_path / "patterns").glob("*.hs")
    assert kept.stat().st_mode & 0o777 == 0o600
    whole = kept.read_bytes()
    kept.write_bytes(b"planted")
    assert match._Automaton(("brie",)).find("brie") == (0,)
    assert kept.read_bytes() == whole


@needs_hyperscan
def test_the_automaton_takes_time_linear_in_a_hostile_text() -> None:
    found = matcher(tuple(of_pattern(rf"\bwithout\b.{{0,60}}\bword{i}\b") for i in range(20)))
    started_s = time.perf_counter()
    found.find("without words " * 70_000)
    assert time.perf_counter() - started_s < 10
