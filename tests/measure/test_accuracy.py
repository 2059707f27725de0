"""Accuracy and its paired comparison."""

import pytest

from spiritsafe.evidence import mcnemar, wilson
from spiritsafe.measure.accuracy import accuracy_verdict, correct, difference_verdict
from spiritsafe.models import Request, open_model, user
from spiritsafe.record import Sampling


def test_each_answer_meets_its_own_check() -> None:
    requests = [Request(user(text), Sampling()) for text in ("7", "8", "9")]
    found = open_model("fake:echo").generate(requests)
    checks = [lambda answer, wanted=wanted: answer == wanted for wanted in ("7", "0", "9")]
    assert correct(found, checks) == [True, False, True]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        correct(found, checks[:2])


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
