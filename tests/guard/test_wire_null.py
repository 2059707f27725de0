"""Clients may send null for any optional field."""

import pytest

from spiritsafe.guard.wire import ChatBody

OPTIONAL = ("temperature", "top_p", "max_tokens", "stop", "seed", "stream", "n", "logprobs", "top_logprobs")


@pytest.mark.parametrize("key", OPTIONAL)
def test_null_means_the_default(key: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], key: None}
    assert getattr(ChatBody.model_validate(body), key) is None
