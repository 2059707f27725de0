"""Numbers and texts as people read them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.errors import printable
from spiritsafe.record import Verdict
from spiritsafe.report.text import duration, interval_text, number, p_text, plain_p_text, shorten, value_text


def verdict(value: float, interval: tuple[float, float] | None, unit: str = "") -> Verdict:
    """A verdict with only what is needed."""
    return Verdict(
        room="measure", name="n", subject="s", claim="c", value=value, unit=unit, interval=interval, n=1, method="m"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (15.0, "15"),
        (147_336, "147,336"),
        (0.4123, "0.412"),
        (-0.12, "−0.120"),
        (3e-7, "3.0\u00a0×\u00a010⁻⁷"),
    ],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_value_is_as_precise_as_its_interval() -> None:
    assert value_text(verdict(0.41234, (0.3, 0.5), "nats/token")) == "0.41 nats/token"
    assert interval_text(verdict(0.41234, (0.3, 0.5))) == "0.30 to 0.50"
    assert value_text(verdict(0.41234, (0.4103, 0.4143))) == "0.4123"


def test_a_share_is_shown_in_per_cent() -> None:
    assert value_text(verdict(0.723, (0.6, 0.82), "share of tokens")) == "72\u00a0%"
    assert interval_text(verdict(0.723, (0.6, 0.82), "share of tokens")) == "60 to 82\u00a0%"


def test_a_small_negative_that_rounds_to_zero_has_no_sign() -> None:
    assert value_text(verdict(-0.0, None)) == "0"
    assert interval_text(verdict(0.1, (-0.0001, 0.2))) == "0.00 to 0.20"


def test_another_confidence_than_95_per_cent_is_named() -> None:
    assert "99" in interval_text(verdict(0.5, (0.1, 0.9)).model_copy(update={"confidence": 0.99}))


def test_a_p_value_is_never_rounded_to_zero() -> None:
    assert p_text(3.6e-15) == "3.6\u00a0×\u00a010⁻¹⁵"
    assert plain_p_text(3.6e-15) == "3.6e-15"
    assert (p_text(0.0412), p_text(1.0)) == ("0.041", "1.0")


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (12.44, 185, 7800)] == ["12.4 s", "3 min 05 s", "2 h 10 min"]


@given(st.text())
def test_no_hidden_character_survives(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown if c not in "\n\t"} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert shown.encode().decode() == shown


def test_a_text_is_shortened_before_its_hidden_characters_are_spelled_out() -> None:
    assert shorten("a\n b") == "a b"
    assert shorten("\u202e" * 3, 2) == "⟨U+202E⟩…"
