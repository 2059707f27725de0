"""Chat completions as servers write them: read for what they say, and unknown where they do not say it."""

import json
from typing import Any

import pytest

from spiritsafe.models.reply import read_reply
from spiritsafe.record import Usage


def data(message: Any, reason: Any = "stop", **more: Any) -> dict[str, Any]:
    """A completion of one choice."""
    return {"choices": [{"message": message, "finish_reason": reason}], **more}


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ("plain", "plain", ""),
        (None, "", ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", ""),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}],
            "a",
            "hm",
        ),
        ([{"type": "refusal", "refusal": "No."}], "No.", ""),
        (["a", "b"], "ab", ""),
        ("half \ud800 of a pair", "half \ufffd of a pair", ""),
    ],
)
def test_a_content_is_read_in_every_form(content: Any, text: str, reasoning: str) -> None:
    found = read_reply(data({"content": content}))
    assert (found.text, found.reasoning) == (text, reasoning)
    json.dumps(found.text).encode()


def test_reasoning_is_read_under_either_name_and_is_no_answer() -> None:
    for name in ("reasoning_content", "reasoning"):
        found = read_reply(data({"content": "", name: "I think"}, "length"))
        assert (found.text, found.reasoning, found.finish_reason) == ("", "I think", "length")


def test_a_refusal_in_its_own_field_is_the_model_s_answer() -> None:
    assert read_reply(data({"content": None, "refusal": "I cannot."})).text == "I cannot."


def test_a_completion_in_the_older_form_is_read() -> None:
    assert read_reply({"choices": [{"text": "old", "finish_reason": "stop"}]}).text == "old"


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("stop", "stop"), ("end_turn", "stop"), ("length", "length"), ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"), ("tool_calls", "tool_calls"), ("function_call", "tool_calls"), ("error", "error"),
        (None, "unknown"), ("", "unknown"), ("because", "unknown"), (7, "unknown"), ({}, "unknown"),
    ],
)  # fmt: skip
def test_an_end_that_nobody_understands_is_no_stop(said: Any, known: str) -> None:
    assert read_reply(data({"content": "x"}, said)).finish_reason == known


def test_an_end_that_is_not_told_is_unknown() -> None:
    assert read_reply({"choices": [{"message": {"content": "x"}}]}).finish_reason == "unknown"


@pytest.mark.parametrize(
    "usage",
    [
        None, [], "x", {}, {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": 3, "completion_tokens": 2.5}, {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 3, "completion_tokens": float("nan")}, {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 3, "completion_tokens": 10**12}, {"prompt_tokens": 3},
    ],
)  # fmt: skip
def test_a_count_that_cannot_be_is_not_known_and_not_zero(usage: Any) -> None:
    assert read_reply(data({"content": "x"}, usage=usage)).usage == Usage(known=False)


def test_whole_counts_are_known_also_as_floats() -> None:
    usage = {"prompt_tokens": 3.0, "completion_tokens": 0}
    assert read_reply(data({"content": "x"}, usage=usage)).usage == Usage(prompt_tokens=3, completion_tokens=0)


@pytest.mark.parametrize("broken", [None, [], {}, {"choices": []}, {"choices": [7]}, {"choices": [{"message": "x"}]}])
def test_what_is_no_completion_is_refused(broken: Any) -> None:
    with pytest.raises(ValueError, match=r"no choices|no message"):
        read_reply(broken)
