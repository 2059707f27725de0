"""Features of accounts."""

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.guard.watch.features import by_account
from spiritsafe.models import open_model
from spiritsafe.models.base import Request, failed, user
from spiritsafe.record import Sampling, Usage


def test_tokens_are_summed_and_prompts_counted_once_by_account() -> None:
    asked = [("a", "one two"), ("a", "one two"), ("a", "three"), ("b", "four"), ("stranger", "five")]
    exchanges = open_model("fake:echo").generate([Request(user(t), Sampling(), account=name) for name, t in asked])
    assert by_account(exchanges, ["a", "b"], "answer_tokens") == {"a": 5.0, "b": 1.0}
    assert by_account(exchanges, ["a", "b"], "distinct_prompts") == {"a": 2.0, "b": 1.0}


def test_an_answer_whose_tokens_nobody_counted_is_not_nothing() -> None:
    (answered,) = open_model("fake:echo").generate([Request(user("nine char"), Sampling(), account="a")])
    for usage in (Usage(), Usage(known=False)):
        assert by_account([answered.model_copy(update={"usage": usage})], ["a"], "answer_tokens") == {"a": 3.0}


def test_an_answer_that_broke_off_counts_by_what_was_sent_of_it() -> None:
    request = Request(user("one"), Sampling(), account="a")
    broken = failed("fake:echo", "0" * 64, request, "out of reach", "passing")
    assert by_account([broken], ["a"], "answer_tokens") == {"a": 0.0}
    sent = broken.model_copy(update={"sent": "nine char"})
    assert by_account([sent], ["a"], "answer_tokens") == {"a": 3.0}


def test_an_unknown_feature_is_met_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'answer_tokens'"):
        by_account([], [], "answer_token")
