"""What a request may hold, and what a client that leaves still causes."""

import json
import logging
import math
import shutil
import socket
import struct
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from safetensors.torch import load_file, save_file

from spiritsafe.guard.wire import MOST_MESSAGES, ChatBody, messages_of
from spiritsafe.models import open_model
from spiritsafe.models.base import OnExchange, OnText, Request, Scores
from spiritsafe.record import Exchange
from tests.guard.conftest import Serve, Served

TURN = {"role": "user", "content": "x"}


class Counting:
    """An echo that counts what it was asked."""

    address, digest = "counting", "0" * 64

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Echo."""
        self.asked += [request.messages[0].content for request in requests]
        return open_model("fake:echo").generate(requests, on_text=on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Nothing."""
        return [Scores((), ()) for _ in exchanges]


def post(served: Served, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    """The answer to a body of one turn with other fields."""
    body = {"model": "served", "messages": [TURN], **fields}
    own = {"authorization": f"Bearer {served.key}", **(headers or {})}
    return httpx2.post(f"{served.url}/v1/chat/completions", json=body, headers=own, trust_env=False, timeout=20)


@pytest.mark.parametrize(
    "field",
    [
        {"max_tokens": "5"}, {"max_tokens": True}, {"max_tokens": 5.5}, {"n": "2"}, {"temperature": "1"},
        {"temperature": True}, {"top_p": "0.5"}, {"stream": "yes"}, {"stream": 1}, {"seed": "7"}, {"logprobs": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_another_type_is_refused_by_its_name(serve: Serve, field: dict[str, Any]) -> None:
    answer = post(serve("fake:echo"), **field)
    (name,) = field
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


def test_a_whole_number_is_taken_as_a_temperature(serve: Serve) -> None:
    served = serve("fake:echo")
    assert post(served, temperature=1, top_p=1).status_code == 200
    assert served.log()[0].sampling.temperature == 1.0


def test_two_bounds_of_an_answer_that_differ_are_refused_and_equal_ones_taken(serve: Serve) -> None:
    served = serve("fake:echo")
    refused = post(served, max_tokens=5, max_completion_tokens=7)
    assert refused.status_code == 400
    assert "max_completion_tokens: is 7 and max_tokens 5" in refused.json()["error"]["message"]
    assert post(served, max_tokens=5, max_completion_tokens=5).status_code == 200


def test_a_refusal_part_is_the_assistants_and_read_as_text() -> None:
    part = {"type": "refusal", "refusal": "I will not.", "text": "unsaid"}
    turns = [TURN, {"role": "assistant", "content": [part]}, TURN]
    body = ChatBody.model_validate_json(json.dumps({"model": "m", "messages": turns}))
    assert messages_of(body)[1].content == "I will not."
    with pytest.raises(ValueError, match="a turn of role user holds a refusal"):
        ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": [part]}]})


def test_a_compressed_body_is_refused_as_such(serve: Serve) -> None:
    served = serve("fake:echo")
    refused = post(served, {"content-encoding": "gzip"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert "Content-Encoding gzip" in refused.json()["error"]["message"]
    assert post(served, {"content-encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    "messages",
    [
        [TURN] * (MOST_MESSAGES + 1),
        [{"role": "user", "content": [{"type": "text", "text": "x"}] * MOST_MESSAGES}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}] * MOST_MESSAGES}, TURN],
    ],
    ids=["turns", "parts", "tool calls"],
)
def test_more_turns_and_parts_than_the_bound_are_refused_before_they_are_read(
    serve: Serve, messages: list[object]
) -> None:
    served = serve("fake:echo")
    refused = post(served, messages=messages)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    assert f"more than {MOST_MESSAGES} turns" in refused.json()["error"]["message"]
    assert not served.log_path.exists()


def test_as_many_turns_as_the_bound_are_answered(serve: Serve) -> None:
    assert post(serve("fake:echo"), messages=[TURN] * MOST_MESSAGES).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_of_clients_that_leave_at_once_what_the_model_is_asked_is_logged_and_nothing_else(
    serve: Serve, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = Counting()
    served = serve(model)
    for number in range(30):
        leave(served, f"client {number}", after_s=number * 0.0005, stream=stream)
    post(served, messages=[{"role": "user", "content": "the last"}])
    served.client.close()
    ends_s = time.monotonic() + 10
    while len(served.log()) < len(model.asked) and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert sorted(one.messages[0].content for one in served.log()) == sorted(model.asked)
    assert "the last" in model.asked
    assert not caplog.records


def test_many_pieces_to_a_client_that_left_say_nothing_in_the_servers_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve("fake:echo")
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            leave(served, "word " * 300, after_s=0.05, stream=True, n=64)
        assert post(served).status_code == 200
    assert not caplog.records


def test_a_client_that_asks_for_another_protocol_is_answered_without_a_word_in_the_servers_log(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = HTTPConnection(urlsplit(serve("fake:echo").url).netloc, timeout=20)
    connection.request("GET", "/health", headers={"connection": "upgrade", "upgrade": "websocket"})
    assert connection.getresponse().status == 200
    connection.close()
    assert capfd.readouterr().err == ""


def test_a_model_whose_weights_are_no_numbers_is_an_error_without_internals_and_its_reason_is_in_the_log(
    serve: Serve, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "nan"))
    weights = load_file(folder / "model.safetensors")
    save_file({name: held * math.nan for name, held in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    served = serve(str(folder))
    failed = post(served, messages=[{"role": "user", "content": "one two"}], max_tokens=4)
    assert (failed.status_code, failed.json()["error"]["message"]) == (500, "The model behind the gateway failed.")
    (logged,) = served.log()
    assert logged.error_kind == "model"
    assert logged.error


def leave(served: Served, text: str, *, after_s: float, **fields: object) -> None:
    """Send a request, wait, and reset the connection."""
    body = json.dumps({"model": "served", "messages": [{"role": "user", "content": text}], **fields}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
    where = urlsplit(served.url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(after_s)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
