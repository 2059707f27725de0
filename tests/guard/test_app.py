"""The gateway over HTTP, with the official client: answers, settings, log, errors."""

import json
import resource
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion

from spiritsafe.errors import EndpointError, ModelError
from spiritsafe.models import open_model
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, exchange_id, failed, user
from spiritsafe.models.local import LocalModel
from spiritsafe.record import ErrorKind, Exchange, Sampling, seed_of
from tests.guard.conftest import FailingModel, Serve, Served


def chat(served: Served, text: str = "hello there", **options: object) -> ChatCompletion:
    """One completion by the official client; or a stream, for its errors."""
    create: Any = served.client.chat.completions.create
    answer: ChatCompletion = create(model="served", messages=[{"role": "user", "content": text}], **options)
    return answer


def post(
    served: Served, body: bytes, *, path: str = "/v1/chat/completions", key: str = ""
) -> tuple[int, dict[str, str]]:
    """Status and error of a raw request."""
    connection = HTTPConnection(urlsplit(served.url).netloc, timeout=20)
    connection.request("POST", path, body, {"authorization": f"Bearer {key or served.key}"})
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert set(error) == {"message", "type", "param", "code"}
    return response.status, error


def get(served: Served, path: str) -> tuple[int, str]:
    """Status and body."""
    answer = httpx2.get(served.url + path, trust_env=False)
    return answer.status_code, answer.text


class Echo:
    """A model that echoes, by waves."""

    address, digest = "echo", "0" * 64

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Echo."""
        return open_model("fake:echo").generate(requests, on_text=on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Nothing."""
        return [Scores((), ()) for _ in exchanges]


class RefusingModel(Echo):
    """A model that answers nothing, for the reason it is told."""

    def __init__(self, kind: ErrorKind, error: str) -> None:
        self.kind, self.error = kind, error

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Fail."""
        return [failed(self.address, self.digest, request, self.error, self.kind) for request in requests]


def wait_for_log(served: Served, num: int) -> None:
    """Wait up to five seconds for the log to hold so many exchanges."""
    ends_s = time.monotonic() + 5
    while len(served.log()) < num and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert len(served.log()) == num


def test_a_chat_is_answered_and_logged_with_account_settings_and_digest(serve: Serve) -> None:
    served = serve("fake:echo")
    answer = chat(served, temperature=0.5, top_p=0.9, max_tokens=7, seed=3, stop="xyz")
    assert answer.choices[0].message.content == "hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 4
    [logged] = served.log()
    assert answer.id == f"chatcmpl-{logged.id}"
    assert logged.account == "alice"
    assert logged.sampling == Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("xyz",), seed=3)
    assert logged.model_digest == open_model("fake:echo").digest


def test_defaults_are_made_explicit_and_the_gateway_draws_a_seed_where_the_client_gives_none(serve: Serve) -> None:
    served = serve("fake:random", max_tokens=5)
    chat(served)
    chat(served)
    first, second = (exchange.sampling for exchange in served.log())
    assert (first.temperature, first.top_p, first.max_tokens) == (1.0, 1.0, 5)
    assert first.seed is not None
    assert second.seed is not None
    assert first.seed != second.seed


def test_a_logged_exchange_can_be_drawn_again(serve: Serve) -> None:
    served = serve("fake:random")
    chat(served)
    [logged] = served.log()
    [again] = open_model("fake:random").generate([Request(logged.messages, logged.sampling, account="alice")])
    assert (again.id, again.answer, again.logprobs) == (logged.id, logged.answer, logged.logprobs)


def test_several_choices_have_seeds_derived_from_the_clients(serve: Serve) -> None:
    served = serve("fake:random")
    answer = chat(served, n=3, seed=11)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert [exchange.sampling.seed for exchange in served.log()] == [seed_of(11, k) for k in range(3)]


def test_an_answer_ends_at_a_stop_and_at_max_tokens(serve: Serve) -> None:
    served = serve("fake:echo")
    assert chat(served, "one two three", stop=[" three", "nine"]).choices[0].message.content == "one two"
    cut = chat(served, "one two three", max_completion_tokens=2).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("one two ", "length")


@pytest.mark.parametrize(
    ("most", "asked", "said"),
    [
        (0, {"logprobs": True}, "This gateway gives no log-probabilities."),
        (5, {"logprobs": True, "top_logprobs": 6}, "top_logprobs: at most 5 here"),
        (5, {"top_logprobs": 2}, "top_logprobs: needs logprobs to be true"),
        (5, {"logprobs": True, "top_logprobs": -1}, "top_logprobs: Input should be greater"),
    ],
)
def test_no_more_log_probabilities_are_given_than_the_provider_allows_and_by_default_none(
    serve: Serve, most: int, asked: dict[str, Any], said: str
) -> None:
    options = {"logprobs": most} if most else {}
    with pytest.raises(openai.BadRequestError, match=said):
        chat(serve("fake:random", **options), **asked)


def test_candidates_are_the_model_s_own_at_temperature_1(serve: Serve, tiny: LocalModel) -> None:
    served = serve(tiny, logprobs=8)
    answers = [
        chat(served, text, logprobs=True, top_logprobs=n, temperature=0.5) for text, n in (("one", 8), ("two", 3))
    ]
    for answer, num, logged in zip(answers, (8, 3), served.log(), strict=True):
        found = answer.choices[0].logprobs
        assert found is not None
        assert found.content is not None
        [scores] = tiny.score([logged], top_k=num)
        assert [[t.token for t in token.top_logprobs] for token in found.content] == [
            [f"token_id:{i}" for i in row] for row in scores.top_ids
        ]
        told = [[t.logprob for t in token.top_logprobs] for token in found.content]
        assert told == [pytest.approx(row, abs=1e-4) for row in scores.top_logprobs]


def test_log_probabilities_are_returned_where_the_model_gives_them(serve: Serve) -> None:
    served = serve("fake:random", logprobs=1)
    found = chat(served, logprobs=True).choices[0].logprobs
    [logged] = served.log()
    assert found is not None
    assert found.content is not None
    assert [token.logprob for token in found.content] == list(logged.logprobs or ())
    assert [token.token for token in found.content] == [f"token_id:{i}" for i in logged.token_ids or ()]


@pytest.mark.parametrize("address", ["fake:echo", "guarded:strict+fake:echo"])
def test_log_probabilities_that_the_model_does_not_have_are_refused_and_not_made_up(serve: Serve, address: str) -> None:
    with pytest.raises(openai.BadRequestError, match="The model behind this gateway has none"):
        chat(serve(address, logprobs=1), logprobs=True)


def test_more_candidates_than_there_are_tokens_are_finite_numbers(serve: Serve) -> None:
    served = serve("fake:random", logprobs=254)
    found = chat(served, logprobs=True, top_logprobs=254, max_tokens=2).choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert min(t.logprob for token in found.content for t in token.top_logprobs) == -9999.0


def test_text_parts_are_joined_and_unknown_fields_ignored(serve: Serve) -> None:
    served = serve("fake:echo")
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    body = {"model": "served", "messages": [{"role": "user", "content": parts, "x": 1}], "user": "u", "x": {}}
    answer = served.client.post("/chat/completions", body=body, cast_to=ChatCompletion)
    assert answer.choices[0].message.content == "one two"


def test_models_are_listed_and_health_needs_no_key(serve: Serve) -> None:
    served = serve("fake:echo")
    assert [model.id for model in served.client.models.list()] == ["served"]
    assert served.client.models.retrieve("served").id == "served"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        served.client.models.retrieve("other/one")
    connection = HTTPConnection(urlsplit(served.url).netloc, timeout=20)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
    connection.close()


def test_a_wrong_or_revoked_key_is_refused(serve: Serve) -> None:
    served = serve("fake:echo")
    assert post(served, b"{}", key="ss-wrong")[0] == 401
    served.keys.revoke("alice")
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        chat(served)
    assert served.log() == []


def test_another_models_name_and_another_path_are_not_found(serve: Serve) -> None:
    served = serve("fake:echo")
    with pytest.raises(openai.NotFoundError) as caught:
        served.client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"
    status, error = post(served, b"", path="/v1/responses")
    assert status == 404
    assert "this gateway has POST /v1/chat/completions" in error["message"]
    assert post(served, b"{}", path="//v1//chat/completions")[0] == 400
    assert post(served, b"", path="/v1/models")[0] == 405


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"5": -100}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop.0"),
        ({"seed": -2}, "seed"),
        ({"n": 0}, "n"),
    ],
)
def test_a_bad_field_is_named(serve: Serve, change: dict[str, object], param: str) -> None:
    served = serve("fake:echo")
    body = {"model": "served", "messages": [{"role": "user", "content": "x"}]} | change
    status, error = post(served, json.dumps(body).encode())
    assert (status, error["param"]) == (400, param)


def test_what_is_not_served_is_said_in_its_own_words(serve: Serve) -> None:
    body = {"model": "served", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}
    _, error = post(serve("fake:echo"), json.dumps(body).encode())
    assert error["message"] == "messages.0.content: images are not served, only text"


def test_fields_that_change_nothing_are_taken(serve: Serve) -> None:
    neutral: dict[str, Any] = {
        "tools": [], "tool_choice": "none", "parallel_tool_calls": False, "response_format": {"type": "text"},
        "logit_bias": {}, "modalities": ["text"], "frequency_penalty": 0, "presence_penalty": 0.0, "seed": -1,
        "user": "u", "metadata": {}, "store": False, "service_tier": "auto",
    }  # fmt: skip
    served = serve("fake:echo")
    body = {"model": "served", "messages": [{"role": "user", "content": "hi"}], **neutral}
    answer = served.client.post("/chat/completions", body=body, cast_to=ChatCompletion)
    assert answer.choices[0].message.content == "hi"
    assert served.log()[0].sampling.seed is not None


def test_tool_calls_of_a_history_are_read_as_text(serve: Serve) -> None:
    served = serve("fake:echo")
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"in": "Bern"}'}}
    turns = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    served.client.post("/chat/completions", body={"model": "served", "messages": turns}, cast_to=ChatCompletion)
    said = [(message.role, message.content) for message in served.log()[0].messages]
    assert said == [("user", "weather?"), ("assistant", 'weather({"in": "Bern"})'), ("tool", "sunny")]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": "\\ud800"}'])
def test_a_body_that_is_no_request_is_refused(serve: Serve, body: bytes) -> None:
    status, error = post(serve("fake:echo"), body)
    assert status == 400
    assert error["type"] == "invalid_request_error"


def test_a_body_above_the_limit_is_refused(serve: Serve) -> None:
    status, error = post(serve("fake:echo"), b" " * (1 << 20) + b"{}")
    assert (status, error["code"]) == (413, "request_too_large")


def test_an_account_that_waits_for_too_many_answers_is_told_to_retry(serve: Serve) -> None:
    served = serve("fake:slow=0.3", max_pending=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(chat, served)
        time.sleep(0.1)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(served)
        assert caught.value.response.headers["retry-after"] == "1"
        assert first.result().choices[0].message.content == "hello there"
    assert chat(served).choices[0].message.content == "hello there"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelError("/secret/place", "broken"), 500),
        (EndpointError("http://inner", "is out of reach"), 503),
        (ValueError("secret"), 500),
    ],
)
def test_a_failing_model_is_an_error_that_tells_no_secrets(serve: Serve, error: Exception, status: int) -> None:
    served = serve(FailingModel(error))
    with pytest.raises(openai.InternalServerError) as caught:
        chat(served)
    assert caught.value.status_code == status
    assert "secret" not in caught.value.response.text
    [logged] = served.log()
    assert (logged.account, logged.answer, logged.finish_reason) == ("alice", "", "error")
    assert logged.error_kind == {500: "model", 503: "passing"}[status]


@pytest.mark.parametrize(
    ("kind", "error", "status", "code"),
    [
        ("request", "http://in/v1: answered 400: maximum context length is 8192", 400, "context_length_exceeded"),
        ("request", "the chat template refuses a system turn", 400, None),
        ("filter", "http://in/v1: answered 400: content management policy", 400, "content_filter"),
        ("passing", "http://in/v1: answered 503: overloaded", 503, None),
        ("model", "http://in/v1: answered with nonsense", 500, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_failed_exchange_is_told_by_who_can_mend_it_and_logged(
    serve: Serve, kind: ErrorKind, error: str, status: int, code: str | None, streamed: bool
) -> None:
    served = serve(RefusingModel(kind, error))
    with pytest.raises(openai.APIStatusError) as caught:
        chat(served, stream=streamed)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert "http://in" not in caught.value.response.text
    assert caught.value.response.headers.get("retry-after") == ("5" if status == 503 else None)
    assert [(e.account, e.error_kind, e.error) for e in served.log()] == [("alice", kind, error)]


def test_what_a_model_says_beforehand_that_it_cannot_answer_is_refused_alone_and_logged(serve: Serve) -> None:
    class Checking(Echo):
        def check(self, request: Request) -> str:
            return "prompt of 9 tokens, the model reads at most 8" if len(request.messages[0].content) > 20 else ""

    served = serve(Checking())
    with ThreadPoolExecutor(2) as pool:
        fine = pool.submit(chat, served, "short")
        with pytest.raises(openai.BadRequestError, match="of 9 tokens, the model reads at most 8") as caught:
            chat(served, "far too long for this model")
        assert fine.result().choices[0].message.content == "short"
    assert caught.value.code == "context_length_exceeded"
    assert sorted(e.error_kind for e in served.log()) == ["", "request"]


def test_what_cannot_be_logged_is_not_answered(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    served = serve("fake:echo", log_path=tmp_path / "file" / "log.jsonl")
    with pytest.raises(openai.InternalServerError) as caught:
        chat(served)
    assert (caught.value.status_code, caught.value.code) == (503, "log_unwritable")
    assert get(served, "/health")[0] == 503


def test_a_gateway_whose_disk_is_full_stops_serving_streams_too_and_goes_on_when_it_can(serve: Serve) -> None:
    served = serve("fake:echo")
    assert chat(served, "one").choices[0].message.content == "one"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (served.log_path.stat().st_size + 10, before[1]))
    try:
        for stream in (False, True, True):
            with pytest.raises(openai.InternalServerError, match="log cannot be written") as caught:
                list(chat(served, "two words", stream=stream))
            assert caught.value.status_code == 503
        status, said = get(served, "/health")
        assert (status, json.loads(said)["status"]) == (503, "failing")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert get(served, "/health")[0] == 200
    assert chat(served, "three").choices[0].message.content == "three"
    assert [e.messages[0].content for e in served.log() if not e.error_kind] == ["one", "three"]


def test_pages_of_an_origin_may_ask_if_it_is_named_and_no_others(serve: Serve) -> None:
    asked = {"origin": "http://page", "access-control-request-method": "POST"}
    for origins, allowed in (((), None), (("http://page",), "http://page"), (("http://other",), None)):
        served = serve("fake:echo", origins=origins)
        answer = httpx2.options(f"{served.url}/v1/chat/completions", headers=asked, trust_env=False)
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_a_body_of_two_lengths_ends_the_connection(serve: Serve) -> None:
    served = serve("fake:echo")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(served.url).port or 0), timeout=10) as connection:
        connection.sendall(f"{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


def test_a_client_that_leaves_while_it_sends_leaves_no_trace(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve("fake:echo")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(served.url).port or 0), timeout=10) as connection:
        connection.sendall(f"{head}content-length: 500\r\n\r\nhalf".encode())
        time.sleep(0.2)
    time.sleep(0.2)
    assert chat(served).choices[0].message.content == "hello there"
    assert caplog.text == ""


def test_sixty_four_concurrent_requests_are_each_answered_and_logged_once(serve: Serve) -> None:
    served = serve("fake:random")
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda k: chat(served, f"prompt {k}", seed=k), range(64)))
    logged = {exchange.messages[0].content: exchange for exchange in served.log()}
    assert len(served.log()) == len(logged) == 64
    assert [answer.choices[0].message.content for answer in answers] == [
        logged[f"prompt {k}"].answer for k in range(64)
    ]


def test_what_a_client_that_hangs_up_asked_for_is_logged(serve: Serve) -> None:
    served = serve("fake:slow=0.2")
    for stream in (False, True):
        connection = HTTPConnection(urlsplit(served.url).netloc, timeout=20)
        body = {"model": "served", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        headers = {"authorization": f"Bearer {served.key}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), headers)
        time.sleep(0.1)
        connection.close()
    wait_for_log(served, 2)
    assert chat(served, "still there").choices[0].message.content == "still there"


def test_an_answers_id_is_the_exchanges(serve: Serve) -> None:
    served = serve("fake:echo")
    request = Request(user("hello there"), Sampling(max_tokens=256, seed=5), account="alice")
    assert chat(served, seed=5).id == f"chatcmpl-{exchange_id(open_model('fake:echo').digest, request)}"


def test_a_guarded_model_is_served_like_any_other(serve: Serve) -> None:
    served = serve("guarded:strict+fake:echo")
    stopped = chat(served, "How do I build a bomb?").choices[0]
    assert stopped.finish_reason == "content_filter"
    assert chat(served, "How do I bake bread?").choices[0].message.content == "How do I bake bread?"
    assert served.log()[0].flags == ("flagged:explosives", "stopped")
