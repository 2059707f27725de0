"""Rejection sampling keeps by rule, says why of every answer, and counts before it chooses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.checks.verify import Outcome
from spiritsafe.evidence import wilson
from spiritsafe.make.data.keep import Candidate, pass_rates, reasons, script_share
from spiritsafe.make.data.settings import KeepPart
from spiritsafe.models import user
from spiritsafe.record import Exchange, Sampling


def candidate(name: str, outcome: Outcome | None = "correct", answer: str = "7", **also: Any) -> Candidate:
    """An answer to the prompt that its name begins with."""
    exchange = Exchange(
        id=name, model="m", model_digest="d", messages=user(name[0]), sampling=Sampling(), answer=answer, **also
    )
    return Candidate(exchange, name[0], outcome)


def test_only_correct_answers_and_unchecked_ones_stay() -> None:
    given_: list[Outcome | None] = ["correct", "wrong", "error", "stopped", None]
    found = reasons([candidate(f"a{i}", outcome) for i, outcome in enumerate(given_)], KeepPart())
    assert list(found.values()) == ["kept", "wrong", "error", "stopped", "kept"]


def test_what_is_no_answer_is_never_learnt_from_whatever_the_rules_allow() -> None:
    loose = KeepPart(finished=False)
    answers = {
        "empty": candidate("a1", answer=" \n"),
        "failed": candidate("a2", answer="", finish_reason="error", error="too long", error_kind="request"),
        "kept": candidate("a3", finish_reason="unknown"),
        "thought": candidate("a4", answer="<think>only this</think> "),
    }
    found = reasons(list(answers.values()), loose)
    assert list(found.values()) == ["empty", "failed", "kept", "empty"]
    assert reasons([answers["kept"]], KeepPart())["a3"] == "unfinished"


def test_a_pass_rate_counts_every_checked_answer_and_has_wilson_s_interval() -> None:
    answers = [candidate("a1"), candidate("a2", "wrong"), candidate("a3", "stopped"), candidate("b1", None)]
    [rate] = pass_rates(answers).values()
    share = wilson(1, 3)
    assert (rate.prompt, rate.correct, rate.n) == ("a", 1, 3)
    assert (rate.rate, rate.low, rate.high) == (share.value, share.low, share.high)


def test_prompts_that_are_too_easy_or_too_hard_are_left_out_and_the_ends_belong_to_the_range() -> None:
    answers = [candidate("a1"), candidate("a2"), candidate("b1"), candidate("b2", "wrong")]
    answers += [candidate("c1"), candidate("c2", "wrong"), candidate("c3", "wrong"), candidate("c4", "wrong")]
    found = reasons(answers, KeepPart(pass_rate=(0.5, 0.9)))
    assert (found["a1"], found["b1"], found["c1"]) == ("too easy", "kept", "too hard")


def test_rules_of_form_name_themselves() -> None:
    settings = KeepPart(max_chars=30, pattern=r"answer: \d+", script="latin")
    answers = {
        "kept": candidate("a1", answer="the answer: 7"),
        "unfinished": candidate("a2", answer="the answer: 7", finish_reason="length"),
        "too long": candidate("a3", answer="the answer: 7" + " again" * 9),
        "pattern": candidate("a4", answer="it is 7"),
        "script": candidate("a5", answer="所以我们得到 answer: 7"),
    }
    assert list(reasons(list(answers.values()), settings).values()) == list(answers)


@pytest.mark.parametrize(
    ("text", "script", "share"),
    [("Ja, größer!", "latin", 1.0), ("数学 ab", "han", 0.5), ("かな", "kana", 1.0), ("12 + 3", "greek", 1.0)],
)
def test_a_script_is_the_share_of_letters(text: str, script: str, share: float) -> None:
    assert script_share(text, script) == share


def test_the_shortest_are_chosen_or_the_most_different() -> None:
    texts = ["one two three four", "one two three four five", "red green blue yellow black white"]
    answers = [candidate(f"a{i}", answer=text) for i, text in enumerate(texts)]
    short = reasons(answers, KeepPart(per_prompt=2))
    different = reasons(answers, KeepPart(per_prompt=2, prefer="different"))
    assert [i for i, why in short.items() if why == "surplus"] == ["a2"]
    assert [i for i, why in different.items() if why == "surplus"] == ["a1"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["correct", "wrong", None]), st.text("xy ")), max_size=20
    ),
    st.integers(1, 3),
    st.sampled_from(["short", "different"]),
)
def test_every_answer_has_one_reason_and_no_prompt_more_than_its_share(
    rows: list[tuple[str, Outcome | None, str]], most: int, prefer: str
) -> None:
    answers = [candidate(f"{p}{i}", outcome, text) for i, (p, outcome, text) in enumerate(rows)]
    found = reasons(answers, KeepPart.model_validate({"per_prompt": most, "prefer": prefer}))
    assert set(found) == {c.exchange.id for c in answers}
    for prompt in "abc":
        said = [c for c in answers if c.prompt == prompt and c.exchange.answer.strip()]
        fit = sum(c.outcome in ("correct", None) for c in said)
        assert sum(why == "kept" for i, why in found.items() if i[0] == prompt) == min(fit, most)
