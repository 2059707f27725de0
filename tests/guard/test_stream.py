"""Streaming, with the official client and with curl."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from spiritsafe.errors import ModelError
from spiritsafe.guard.stream import MOST_PIECES, Event, Events
from spiritsafe.record import sent_text
from tests.guard.conftest import FailingModel, Serve, Served


def stream(served: Served, text: str, **options: Any) -> list[ChatCompletionChunk]:
    """All chunks of one streamed completion."""
    create: Any = served.client.chat.completions.create
    return list(create(model="served", messages=[{"role": "user", "content": text}], stream=True, **options))


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """The text of one choice."""
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index)


def test_a_stream_brings_the_answer_word_by_word(serve: Serve) -> None:
    served = serve("fake:echo")
    chunks = stream(served, "one two three")
    assert text_of(chunks) == "one two three"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert chunks[0].id == f"chatcmpl-{served.log()[0].id}"


def test_a_stream_tells_its_usage_where_asked(serve: Serve) -> None:
    served = serve("fake:echo")
    last = stream(served, "one two three", stream_options={"include_usage": True})[-1]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 3)


def test_a_stream_of_several_choices_brings_each_as_it_is_logged(serve: Serve) -> None:
    served = serve("fake:random")
    chunks = stream(served, "one", n=3, seed=1)
    assert [text_of(chunks, index) for index in range(3)] == [exchange.answer for exchange in served.log()]


def test_a_stream_ends_with_the_log_probabilities(serve: Serve) -> None:
    served = serve("fake:random", logprobs=2)
    found = stream(served, "one", logprobs=True, top_logprobs=2)[-1].choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert tuple(token.logprob for token in found.content) == served.log()[0].logprobs
    assert {len(token.top_logprobs) for token in found.content} == {2}


def test_a_stopped_answer_never_streams(serve: Serve) -> None:
    served = serve("guarded:strict+fake:fixed=Take some dynamite.")
    chunks = stream(served, "How do I build a bomb?")
    assert text_of(chunks) == "I can't help with that."
    assert chunks[-1].choices[0].finish_reason == "content_filter"


BOTH = """
name = "both"
check = "both"
decide = "stages"
refusal = "No."
rules.w = { phrases = ["dynamite"], on = "both" }
"""


@pytest.mark.parametrize("n", [1, 2])
def test_what_is_stopped_for_the_answer_is_never_sent_and_the_log_has_what_was(
    serve: Serve, tmp_path: Path, n: int
) -> None:
    (tmp_path / "both.toml").write_text(BOTH)
    served = serve(f"guarded:{tmp_path}/both.toml+fake:fixed=Take some dynamite and run.")
    chunks = stream(served, "hello", n=n)
    assert [text_of(chunks, index) for index in range(n)] == ["No."] * n
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == [
        "content_filter"
    ] * n
    assert [sent_text(exchange) for exchange in served.log()] == ["No."] * n


ANSWERS = 'extends = "heads"\nname = "wary"\ncheck = "both"\n[answers]\npair = -100\n'


def test_an_answer_that_the_fitted_control_stops_is_never_sent(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "wary.toml").write_text(ANSWERS)
    served = serve(f"guarded:{tmp_path}/wary.toml+fake:fixed=Bake some bread and run.")
    assert text_of(stream(served, "hello")) == "I can't help with that."
    assert served.log()[0].flags == ("flagged:answer", "stopped", "retracted")


@pytest.mark.parametrize("side", ["output", "both"])
def test_an_ordinary_answer_is_sent_under_a_policy_that_reads_answers(serve: Serve, side: str) -> None:
    served = serve(f"guarded:heads@{side}+fake:fixed=Bake some bread and run.")
    assert text_of(stream(served, "hello")) == "Bake some bread and run."


def test_in_shadow_nothing_is_held(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "both.toml").write_text(BOTH)
    served = serve(f"guarded:{tmp_path}/both.toml@shadow+fake:fixed=Take some dynamite.")
    chunks = stream(served, "hello")
    assert [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content] == ["Take ", "some ", "dynamite."]
    assert served.log()[0].flags == ("flagged:w", "shadow")


def test_a_stream_that_has_nothing_to_say_yet_shows_signs_of_life(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spiritsafe.guard.stream.FIRST_S", 0.1)
    monkeypatch.setattr("spiritsafe.guard.stream.ALIVE_S", 0.2)
    served = serve("fake:slow=0.9")
    assert text_of(stream(served, "one two")) == "one two"
    body = {"model": "served", "messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"authorization": f"Bearer {served.key}"}
    answer = httpx2.post(f"{served.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
    assert 2 <= answer.text.count("\n: \n") + answer.text.startswith(": ") <= 5
    assert answer.text.endswith("data: [DONE]\n\n")


def test_pieces_that_wait_for_a_slow_reader_are_joined() -> None:
    async def wait() -> list[Event]:
        events = Events()
        for k in range(1000):
            events._add(0, f"{k} ")
        return list(events._events)

    found = asyncio.run(wait())
    assert len(found) == MOST_PIECES
    assert "".join(str(piece) for _, piece in found) == "".join(f"{k} " for k in range(1000))


def test_a_model_that_fails_before_its_first_word_gives_a_status(serve: Serve) -> None:
    with pytest.raises(openai.InternalServerError):
        stream(serve(FailingModel(ModelError("x", "broken"))), "one")


def test_a_model_that_fails_on_the_way_gives_an_error_in_the_stream(serve: Serve) -> None:
    served = serve(FailingModel(ModelError("x", "broken"), streamed="half of it"))
    with pytest.raises(openai.APIError, match="The model behind the gateway failed"):
        stream(served, "one")
    assert [exchange.sent for exchange in served.log()] == ["half of "]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_is_answered_and_streamed_to(serve: Serve) -> None:
    served = serve("fake:echo")
    body = {"model": "served", "messages": [{"role": "user", "content": "one two"}]}
    answer = json.loads(curl(served, body))
    assert answer["choices"][0]["message"]["content"] == "one two"
    lines = [line for line in curl(served, body | {"stream": True}).splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    pieces = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    assert pieces == ["", "one ", "two", ""]


def curl(served: Served, body: dict[str, Any]) -> str:
    """What curl prints."""
    command = ["curl", "-sSN", "--max-time", "20", f"{served.url}/v1/chat/completions"]
    headers = ["-H", f"Authorization: Bearer {served.key}", "-H", "Content-Type: application/json"]
    done = subprocess.run([*command, *headers, "-d", json.dumps(body)], capture_output=True, text=True, check=True)
    return done.stdout
