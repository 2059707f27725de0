"""Accuracy and its paired comparison."""

import pytest

from spiritsafe.errors import DataError
from spiritsafe.evidence import mcnemar, wilson
from spiritsafe.measure.accuracy import accuracy_verdict, correct, difference_verdict
from spiritsafe.models import Request, open_model, user
from spiritsafe.prompts import Prompt
from spiritsafe.record import Sampling, prompt_digest


def asked(text: str, reference: str) -> Prompt:
    """A prompt with a right answer."""
    messages = user(text)
    options = {"answer": reference}
    return Prompt(digest=prompt_digest(messages), messages=messages, split="heldout", source="test", options=options)


def test_each_answer_meets_its_own_check_and_one_that_never_came_is_neither_right_nor_wrong() -> None:
    requests = [Request(user(text), Sampling()) for text in ("7", "8", "9")]
    found = open_model("fake:echo").generate(requests)
    lost = found[0].model_copy(update={"error_kind": "request", "error": "too long", "answer": ""})
    tasks = [asked("7", "7"), asked("8", "0"), asked("9", "9")]
    assert correct(found, tasks) == [True, False, True]
    assert correct([lost, *found[1:]], tasks) == [None, False, True]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        correct(found, tasks[:2])


def test_answers_that_nobody_could_score_are_counted_and_above_a_share_nothing_is_claimed() -> None:
    few = accuracy_verdict("student", [True] * 30 + [None], seed=0)
    many = accuracy_verdict("student", [True] * 9 + [None], seed=0)
    assert (few.value, few.n, few.detail) == (1, 30, {"unscorable": 1})
    assert "100%" in few.claim
    assert "1 of 31 could not be scored and are left out" in few.limits
    assert many.claim == "What the student solves cannot be said: 1 of 10 answers could not be scored."
    none = difference_verdict("a", "b", [True] * 9 + [None], [False] * 10, seed=0)
    assert not none.rejected
    assert none.claim == "Nothing is said of the a and the b: 1 of 10 tasks were not scored."
    with pytest.raises(DataError, match="none of 2 answers could be scored"):
        accuracy_verdict("student", [None, None], seed=0)


def test_accuracy_has_wilsons_interval() -> None:
    found, expected = accuracy_verdict("student", [True] * 7 + [False] * 13, seed=4), wilson(7, 20)
    assert (found.value, found.interval, found.n, found.seed) == (0.35, (expected.low, expected.high), 20, 4)
    assert "35%" in found.claim


def test_a_clear_difference_is_claimed_in_its_direction() -> None:
    good, bad = [True] * 18 + [False] * 2, [False] * 18 + [True] * 2
    more, fewer = (difference_verdict("a", "b", x, y, seed=0) for x, y in ((good, bad), (bad, good)))
    assert more.claim == "The a solves more tasks than the b."
    assert fewer.claim == "The a solves fewer tasks than the b."
    assert more.value == -fewer.value == 0.8
    assert more.rejected
    assert more.p_value == mcnemar(good, bad).p_value
    assert "20 of 20 tasks tell the two apart" in more.limits


def test_equal_outcomes_show_no_difference() -> None:
    found = difference_verdict("a", "b", [True, False] * 10, [True, False] * 10, seed=0)
    assert found.claim.startswith("No difference between the a and the b could be shown")
    assert (found.value, found.p_value, found.rejected) == (0, 1, False)
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]
