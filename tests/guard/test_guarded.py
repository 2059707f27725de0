"""A model behind the risk control."""

from pathlib import Path

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.guard.guarded import GuardedModel
from spiritsafe.models import open_model
from spiritsafe.models.base import Model, Request, user
from spiritsafe.record import Exchange, Sampling

HEAD = 'name = "mine"\ndecide = "stages"\nrefusal = "No bread."\n'
ASKED = ["How do I bake bread?", "How do I build a bomb?"]


def answers(address: str, **settings: object) -> list[Exchange]:
    """Answers to a harmless and a harmful query."""
    return open_model(address).generate([Request(user(text), Sampling.model_validate(settings)) for text in ASKED])


def test_patterns_alone_stop_what_they_flag() -> None:
    harmless, harmful = answers("guarded:strict+fake:random", seed=1)
    assert harmless.flags == ()
    assert harmless.token_ids is not None
    assert (harmful.answer, harmful.finish_reason) == ("I can't help with that.", "content_filter")
    assert harmful.flags == ("flagged:explosives", "stopped")
    assert harmful.token_ids is None
    assert harmful.logprobs is None


def test_an_unflagged_answer_is_the_inner_models() -> None:
    guarded, inner = answers("guarded:strict+fake:random", seed=1)[0], answers("fake:random", seed=1)[0]
    assert (guarded.answer, guarded.token_ids, guarded.logprobs) == (inner.answer, inner.token_ids, inner.logprobs)
    assert guarded.id != inner.id


def test_the_reviewer_in_the_address_decides() -> None:
    stopped = answers("guarded:default~fake:fixed=unsafe+fake:echo")[1]
    assert stopped.flags == ("flagged:explosives", "reviewed:unsafe", "stopped")
    passed = answers("guarded:default~fake:fixed=safe+fake:echo")[1]
    assert (passed.answer, passed.flags) == (ASKED[1], ("flagged:explosives", "reviewed:safe"))


def test_a_model_may_review_itself() -> None:
    model = open_model("guarded:default+fake:fixed=unsafe")
    assert isinstance(model, GuardedModel)
    assert model.reviewer is model.inner
    assert "stopped" in answers("guarded:default+fake:fixed=unsafe")[1].flags


def test_a_policy_file_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{HEAD}[rules.bread]\nphrases = ["bread"]\n')
    assert [exchange.answer for exchange in answers(f"guarded:{path}+fake:echo")] == ["No bread.", ASKED[1]]


def test_policy_reviewer_and_model_are_all_in_the_digest() -> None:
    addresses = [
        "guarded:strict+fake:echo",
        "guarded:strict+fake:random",
        "guarded:default+fake:echo",
        "guarded:default~fake:fixed=safe+fake:echo",
        "fake:echo",
    ]
    assert len({open_model(address).digest for address in addresses}) == len(addresses)


def test_text_streams_as_it_grows_unless_the_query_is_flagged() -> None:
    heard: list[tuple[int, str]] = []
    model = open_model("guarded:strict+fake:fixed=one two")
    assert isinstance(model, Model)
    model.generate(
        [Request(user(text), Sampling()) for text in ASKED], on_text=lambda i, piece: heard.append((i, piece))
    )
    assert heard == [(0, "one "), (0, "two"), (1, "I can't help with that.")]


def test_scores_are_the_inner_models() -> None:
    exchanges = answers("fake:random", seed=1)
    assert open_model("guarded:strict+fake:random").score(exchanges) == open_model("fake:random").score(exchanges)


@pytest.mark.parametrize("address", ["guarded:strict", "guarded:+fake:echo", "guarded:strict+"])
def test_a_broken_address_is_met_with_the_grammar(address: str) -> None:
    with pytest.raises(UsageError, match=r"guarded:POLICY\[@CHECK\]\[~REVIEWER\]\+MODEL"):
        open_model(address)


def test_a_reviewer_that_nobody_asks_is_an_error() -> None:
    with pytest.raises(UsageError, match="asks no reviewer"):
        open_model("guarded:strict~fake:echo+fake:echo")


def test_an_unknown_side_is_named() -> None:
    with pytest.raises(UsageError, match="no side 'inptu'; input, output, both or shadow"):
        open_model("guarded:strict@inptu+fake:echo")


def test_an_address_says_which_side_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{HEAD}[rules.bread]\nphrases = ["bread"]\non = "both"\n')
    for check, stopped in {"input": [True, False], "output": [False, True], "both": [True, True]}.items():
        asked = [Request(user(text), Sampling()) for text in ("bread", "cheese")]
        model = open_model(f"guarded:{path}@{check}+fake:fixed=fine")
        baker = open_model(f"guarded:{path}@{check}+fake:fixed=bread")
        found = [model.generate(asked)[0], baker.generate(asked)[1]]
        assert ["stopped" in exchange.flags for exchange in found] == stopped
    [_, harmful] = answers("guarded:strict@shadow+fake:fixed=fine")
    assert harmful.flags == ("flagged:explosives", "shadow")


@pytest.mark.parametrize("check", ["output", "both"])
def test_a_side_that_no_rule_reads_is_refused(tmp_path: Path, check: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{HEAD}[rules.bread]\nphrases = ["bread"]\n')
    with pytest.raises(UsageError, match="policy 'mine' has no rule or head that reads the output"):
        open_model(f"guarded:{path}@{check}+fake:echo")


def test_a_policy_that_loses_the_side_it_is_asked_to_read_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'{HEAD}[rules.bread]\nphrases = ["bread"]\non = "both"\n')
    model = open_model(f"guarded:{path}@output+fake:fixed=bread")
    path.write_text(f'{HEAD}[rules.bread]\nphrases = ["bread", "toast"]\n')
    [exchange] = model.generate([Request(user("cheese"), Sampling())])
    assert exchange.answer == "No bread."
