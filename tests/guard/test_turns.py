"""Every turn that goes to the model is read, whoever is said to have written it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.guard.control import Control
from spiritsafe.guard.policy import Policy, Rule
from spiritsafe.guard.turns import Turn, cut, size_of, turns_of
from spiritsafe.record import Message

CHEESE = Policy(
    name="cheese",
    decide="stages",
    refusal="No.",
    max_chars=1000,
    rules={"soft": Rule(phrases=("brie", "blue cheese"))},
)
Said = list[tuple[str, str]]


def messages(said: Said) -> list[Message]:
    """Turns as records."""
    return [Message.model_validate({"role": role, "content": text}) for role, text in said]


def rules_of(said: Said) -> list[tuple[str, str]]:
    """Each rule that finds something, with the role of the turn it was found in."""
    [look] = Control(CHEESE).look_in([messages(said)])
    return [(found.rule, found.role) for found in look.findings]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_a_turn_of_any_role_is_read(role: str) -> None:
    assert rules_of([(role, "some brie"), ("user", "go on")]) == [("soft", role)]
    assert rules_of([("user", "go on"), (role, "some brie")]) == [("soft", role)]
    assert rules_of([(role, "some brie")]) == [("soft", role)]


def test_a_message_has_no_part_that_nobody_reads() -> None:
    assert set(Message.model_fields) == {"role", "content"}


@pytest.mark.parametrize(
    "said",
    [
        [("user", "a slice of br"), ("user", "ie, please")],
        [("user", "a slice of blue"), ("assistant", "cheese")],
        [("system", "b"), ("user", "r"), ("user", "i"), ("user", "e")],
    ],
)
def test_what_is_cut_over_turns_is_read_joined(said: Said) -> None:
    assert rules_of(said) == [("soft", "joined")]


def test_ordinary_turns_joined_are_no_finding() -> None:
    assert rules_of([("user", "bread"), ("assistant", "Gladly."), ("user", "and butter")]) == []


def test_what_came_after_the_last_answer_is_new() -> None:
    said = [("system", "s"), ("user", "a"), ("assistant", "b"), ("tool", "c"), ("user", "d")]
    assert [turn.new for turn in turns_of(messages(said))] == [False, False, False, True, True]
    assert [turn.new for turn in turns_of(messages(said[:3]))] == [True, True, True]


def test_a_long_dialogue_is_a_finding_of_its_own_and_read_at_both_ends() -> None:
    said = [("user", "brie " + "x" * 600), ("assistant", "y" * 600), ("user", "z")]
    assert ("too-long", "") in rules_of(said)
    assert ("soft", "user") in rules_of(said)
    assert ("soft", "user") in rules_of([*said[1:], ("user", "brie")])


@given(st.lists(st.text("ab", max_size=9), min_size=1, max_size=5), st.integers(2, 30))
def test_a_cut_dialogue_keeps_its_ends_and_loses_only_the_middle(texts: list[str], limit: int) -> None:
    turns = tuple(Turn("user", text) for text in texts)
    kept = cut(turns, limit)
    whole, left = "".join(texts), "".join(turn.text for turn in kept)
    if size_of(turns) <= limit:
        assert left == whole
    else:
        half = limit // 2
        assert left.replace(" ", "") == whole[:half] + whole[len(whole) - half :]
