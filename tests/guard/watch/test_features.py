"""Features of accounts."""

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.guard.watch.features import by_account
from spiritsafe.models import open_model
from spiritsafe.models.base import Request, user
from spiritsafe.record import Sampling


def test_tokens_are_summed_and_prompts_counted_once_by_account() -> None:
    asked = [("a", "one two"), ("a", "one two"), ("a", "three"), ("b", "four"), ("stranger", "five")]
    exchanges = open_model("fake:echo").generate([Request(user(t), Sampling(), account=name) for name, t in asked])
    assert by_account(exchanges, ["a", "b", "silent"], "answer_tokens") == {"a": 5.0, "b": 1.0, "silent": 0.0}
    assert by_account(exchanges, ["a", "b", "silent"], "distinct_prompts") == {"a": 2.0, "b": 1.0, "silent": 0.0}


def test_an_unknown_feature_is_met_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'answer_tokens'"):
        by_account([], [], "answer_token")
