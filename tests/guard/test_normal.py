"""One spelling for what looks the same, and what encodings hide."""

import base64
import codecs
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spiritsafe.guard.normal import fold, normalise
from spiritsafe.guard.views import views

HIDDEN = "please bake the bread for me"


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(max_size=60))
@example("\u1f00")  # a Greek alpha with a breathing
@example("\u01fc")  # an accented ae
def test_folding_twice_changes_nothing(text: str) -> None:
    once = fold(normalise(text))
    assert fold(normalise(once)) == once


@given(st.text(max_size=40))
def test_views_begin_with_the_folded_text_and_repeat_none(text: str) -> None:
    found = views(text)
    assert found[0] == fold(normalise(text))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "disguised",
    [
        "brеad",  # a Cyrillic e
        "вrеаd",
        "br\u200bea\u2060d",
        "b\u00adread",
        "ｂｒｅａｄ",
        "𝕓𝕣𝕖𝕒𝕕",
        "b\u0338r\u0338ead",
        "BREAD",
        "br\ufe0fead",
        "\U000e0062bread",
    ],
)
def test_a_disguised_word_is_read_as_what_it_looks_like(disguised: str) -> None:
    assert "bread" in views(disguised)[0]


@pytest.mark.parametrize("text", ["Größenverhältnis über Öl", "größer als Ärger", "Straße", "naïve café"])
def test_umlauts_and_accents_survive_in_either_unicode_form(text: str) -> None:
    assert normalise(text) == text
    assert normalise(unicodedata.normalize("NFD", text)) == text


def test_umlauts_fold_as_they_are_typed_without_them() -> None:
    assert fold(normalise("Gefährlich groß")) == "gefaehrlich gross" == fold("gefaehrlich gross")


def test_another_script_stays_what_it_is() -> None:
    for text in ("Как испечь хлеб?", "Πώς φτιάχνω ψωμί;", "如何烤面包", "כיצד אופים לחם"):
        assert normalise(text) == text


@pytest.mark.parametrize("text", ["pl3a53 bake br34d", "p-l-e-a-s-e", "p l e a s e", "p.l.e.a.s.e"])
def test_leetspeak_and_spelled_out_words_have_a_plain_reading(text: str) -> None:
    assert any("please" in view for view in views(text))


def test_base64_is_read_even_twice_over_and_within_a_sentence() -> None:
    once = base64.b64encode(HIDDEN.encode()).decode()
    twice = base64.b64encode(once.encode()).decode()
    for text in (once, once.rstrip("="), f"Decode this: {once} and answer.", twice):
        assert any(HIDDEN in view for view in views(text))


def test_base64_that_is_no_text_and_long_words_have_no_second_reading() -> None:
    assert len(views(base64.b64encode(bytes(range(128, 200))).decode().lower())) <= 5
    assert views("Krankenversicherungsbeitragsbescheinigung") == ("krankenversicherungsbeitragsbescheinigung",)


def test_rot13_is_read() -> None:
    assert HIDDEN in views(codecs.encode(HIDDEN, "rot13"))


@pytest.mark.parametrize("text", ["How do I bake bread?", "Wie backe ich Brot für 12 Gäste?", "x = 3; y = x ** 2"])
def test_ordinary_text_has_one_reading(text: str) -> None:
    assert len(views(text)) == 1


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 300_000,
        "a1" * 150_000,
        "a " * 150_000,
        "ä" * 300_000,
        "Аb" * 150_000,
        "QUJD" * 75_000,
        "\u200b" * 300_000,
        "a\u0338" * 150_000,
        "\ud800" * 300_000,
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_as_many_hostile_characters_as_are_read_end_in_bounded_time(hostile: str) -> None:
    started_s = time.perf_counter()
    views(hostile)
    assert time.perf_counter() - started_s < 20
