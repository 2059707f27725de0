"""What a policy makes of exchanges, and why."""

import time
from pathlib import Path

import pytest

from spiritsafe.guard.control import Control, Decision, explain
from spiritsafe.guard.guarded import GuardedModel
from spiritsafe.guard.policy import Policy, Review, Rule
from spiritsafe.guard.stages import Stages
from spiritsafe.models import open_model
from spiritsafe.models.base import Request, user
from spiritsafe.record import Exchange, Sampling, append_jsonl

CHEESE = Policy(
    name="cheese",
    check="both",
    decide="stages",
    refusal="No cheese.",
    max_chars=1000,
    rules={
        "soft": Rule(phrases=("brie",), on="both"),
        "hard": Rule(phrases=("parmesan",), action="stop", on="both"),
        "milk": Rule(phrases=("milk",), action="note"),
        "told": Rule(patterns=(r"\bsmells of cheese\b",), on="output"),
    },
)
REVIEW = Review(prompt="{query} {answer}", unsafe=("unsafe",), safe=("safe",), max_tokens=40)
REVIEWED = CHEESE.model_copy(update={"decide": "reviewer", "review": REVIEW})
QUERIES = ["bread", "brie", "parmesan", "milk", "brie and parmesan", "a b.r.i.e", "brіe"]


def exchange(query: str, answer: str = "an answer") -> Exchange:
    """An exchange of one turn."""
    [made] = open_model(f"fake:fixed={answer}").generate([Request(user(query), Sampling())])
    return made


def decided(query: str, answer: str = "fine", policy: Policy = CHEESE) -> Decision:
    """The decision of the stages alone."""
    [decision] = Control(policy).decide([exchange(query, answer)])
    return decision


@pytest.mark.parametrize(
    ("query", "answer", "stage", "side", "rule", "action"),
    [
        ("bread", "fine", "none", "", "", "pass"),
        ("brie", "fine", "rules", "input", "soft", "stop"),
        ("bread", "some brie", "rules", "output", "soft", "stop"),
        ("bread", "it smells of cheese", "rules", "output", "told", "stop"),
        ("it smells of cheese", "fine", "none", "", "", "pass"),
        ("milk", "fine", "none", "", "", "pass"),
        ("brie, then parmesan", "fine", "rules", "input", "hard", "stop"),
        ("x" * 1001, "fine", "length", "input", "too-long", "stop"),
    ],
)
def test_a_decision_names_stage_side_and_rule(
    query: str, answer: str, stage: str, side: str, rule: str, action: str
) -> None:
    decision = decided(query, answer)
    assert (decision.stage, decision.side, decision.rule, decision.action) == (stage, side, rule, action)


def test_every_finding_is_explained_by_the_pattern_that_occurs() -> None:
    assert explain(decided("bread")) == "pass"
    assert explain(decided("milk and BRIE")).splitlines() == [
        "stop by rules",
        "  input rules soft 1 >= 1 -> flag: brie",
        "  input rules milk 1 >= 1 -> note: milk",
    ]


def test_a_side_that_is_not_checked_is_not_read() -> None:
    asks = CHEESE.model_copy(update={"check": "input"})
    tells = CHEESE.model_copy(update={"check": "output"})
    assert [decided("brie", "bread", p).action for p in (asks, tells)] == ["stop", "pass"]
    assert [decided("bread", "brie", p).action for p in (asks, tells)] == ["pass", "stop"]


def test_shadow_decides_the_same_and_stops_nothing() -> None:
    shadow = CHEESE.model_copy(update={"shadow": True})
    for query in QUERIES:
        plain, silent = decided(query), decided(query, policy=shadow)
        assert (plain.action, plain.rule, plain.stage) == (silent.action, silent.rule, silent.stage)
        assert not silent.stopped
    assert decided("brie", policy=shadow).flags == ("flagged:soft", "shadow")


def test_the_reviewer_is_asked_about_what_is_flagged_and_not_about_what_is_stopped() -> None:
    control = Control(REVIEWED, open_model("fake:fixed=safe"))
    decisions = control.decide([exchange(query) for query in ("bread", "brie", "parmesan")])
    assert [decision.stage for decision in decisions] == ["none", "reviewer", "rules"]
    assert [decision.stopped for decision in decisions] == [False, False, True]
    assert decisions[1].flags == ("flagged:soft", "reviewed:safe")


@pytest.mark.parametrize(
    ("words", "on_unclear", "stopped"), [("safe", "stop", False), ("hm", "stop", True), ("hm", "pass", False)]
)
def test_what_is_unclear_goes_by_the_policy(words: str, on_unclear: str, stopped: bool) -> None:
    policy = REVIEWED.model_copy(update={"review": REVIEW.model_copy(update={"on_unclear": on_unclear})})
    [decision] = Control(policy, open_model(f"fake:fixed={words}")).decide([exchange("brie")])
    assert decision.stopped is stopped


def test_a_query_cannot_smuggle_fields_into_the_question() -> None:
    policy = REVIEWED.model_copy(update={"check": "input", "review": REVIEW.model_copy(update={"prompt": "{query}"})})
    [decision] = Control(policy, open_model("fake:echo")).decide([exchange("brie {answer}", "secret")])
    assert "secret" not in decision.words


def test_padding_does_not_hide_the_end_of_a_query() -> None:
    assert decided("brie" + " pad" * 1000).rule == decided("pad " * 1000 + "brie").rule == "too-long"
    assert "soft" in {found.rule for found in decided("pad " * 1000 + "brie").findings}


def test_what_the_stages_stop_the_model_is_never_asked() -> None:
    heard: list[str] = []

    class Listening:
        address, digest = "listening", "0"

        def generate(self, requests, **_):  # type: ignore[no-untyped-def]
            heard.extend(request.messages[-1].content for request in requests)
            return [exchange(request.messages[-1].content) for request in requests]

    model = GuardedModel("guarded", Listening(), CHEESE, None)  # type: ignore[arg-type]
    answers = model.generate([Request(user(query), Sampling()) for query in ("bread", "brie", "milk")])
    assert heard == ["bread", "milk"]
    assert [answer.finish_reason for answer in answers] == ["stop", "content_filter", "stop"]


def test_a_replay_of_stored_exchanges_decides_as_live(tmp_path: Path) -> None:
    requests = [Request(user(query), Sampling(seed=i)) for i, query in enumerate(QUERIES)]
    inner = open_model("fake:fixed=it smells of cheese and brie")
    stored = tmp_path / "exchanges.jsonl"
    append_jsonl(stored, inner.generate(requests))
    for policy in (CHEESE, CHEESE.model_copy(update={"check": "input"}), REVIEWED):
        reviewer = open_model("fake:fixed=unsafe") if policy.decide == "reviewer" else None
        live = GuardedModel("g", inner, policy, reviewer).generate(requests)
        again = GuardedModel("g", open_model(f"replay:{stored}"), policy, reviewer).generate(requests)
        assert [e.flags for e in live] == [e.flags for e in again]
        assert [e.answer for e in live] == [e.answer for e in again]


def test_a_policy_file_is_read_anew_when_it_changes_and_kept_while_it_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.toml"
    text = 'name = "mine"\ndecide = "stages"\nrefusal = "No."\n[rules.cheese]\nphrases = ["brie"]\n'
    path.write_text(text)
    model = open_model(f"guarded:{path}+fake:echo")
    first = model.digest

    def answers() -> list[str]:
        return [e.answer for e in model.generate([Request(user(q), Sampling()) for q in ("brie", "gouda")])]

    assert answers() == ["No.", "gouda"]
    path.write_text(text.replace('"brie"', '"gouda", "edam"'))
    assert answers() == ["brie", "No."]
    assert model.digest != first
    path.write_text(text.replace("phrases", "frases!"))
    assert answers() == ["brie", "No."]
    assert "the policy stays as it was" in caplog.text


def test_a_hostile_text_is_decided_in_bounded_time() -> None:
    stages = Stages(CHEESE.model_copy(update={"max_chars": 2_000_000}))
    started_s = time.perf_counter()
    for text in ("brie" * 75_000, "b r i e " * 40_000, "ß" * 300_000):
        stages.look(text, "input")
    assert time.perf_counter() - started_s < 20
