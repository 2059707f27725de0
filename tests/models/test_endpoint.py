"""A model behind HTTP: our own gateway, and servers that misbehave."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from spiritsafe.errors import EndpointError, ModelError, UsageError
from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.models import Request, ask, endpoint, open_model, user
from spiritsafe.record import Exchange, Sampling, read_jsonl

Misbehave = Callable[..., str]
GOOD = {"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]}


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a real gateway over `fake:echo`; the key of account `alice` is in the environment."""
    keys = Keys(tmp_path / "keys.db")
    monkeypatch.setenv("SPIRITSAFE_API_KEY", keys.create("alice"))
    app = create_app(open_model("fake:echo"), keys=keys, log=tmp_path / "log.jsonl", name="echo")
    with serving(app) as url:
        yield f"{url}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehave]:
    """Start a server that answers completions with these responses, one after the other."""
    monkeypatch.setattr(endpoint, "pause_s", lambda *_: 0.0)
    with ExitStack() as stack:

        def start(*answers: Response, models: Any = None) -> str:
            left = list(answers)
            listed = {"data": [{"id": "m"}]} if models is None else models

            async def complete(_: HttpRequest) -> Response:
                return left.pop(0) if len(left) > 1 else left[0]

            async def models_(_: HttpRequest) -> Response:
                return listed if isinstance(listed, Response) else JSONResponse(listed)

            routes = [Route("/chat/completions", complete, methods=["POST"]), Route("/models", models_)]
            return f"openai:m@{stack.enter_context(serving(Starlette(routes=routes)))}"

        yield start


def answer(address: str) -> str:
    """One answer's text."""
    [found] = open_model(address).generate([Request(user("hi"), Sampling())])
    return found.answer


def test_the_gateway_answers_in_order_and_its_log_has_the_same_settings(gateway: str, tmp_path: Path) -> None:
    texts: list[tuple[int, str]] = []
    told: list[str] = []
    requests = ask([user(f"{i} grüße") for i in range(20)], Sampling(seed=3, temperature=0.5, stop=("zz",)))
    found = open_model(f"openai:echo@{gateway}", batch=8).generate(
        requests, on_text=lambda i, text: texts.append((i, text)), on_exchange=lambda e: told.append(e.answer)
    )
    assert [e.answer for e in found] == [f"{i} grüße" for i in range(20)] == told
    assert texts == list(enumerate(told))
    assert all(e.usage.completion_tokens == 2 and e.finish_reason == "stop" for e in found)
    logged = {e.sampling.seed: e for e in read_jsonl(tmp_path / "log.jsonl", Exchange)}
    assert [logged[e.sampling.seed].sampling for e in found] == [e.sampling for e in found]
    assert {e.account for e in logged.values()} == {"alice"}


def test_an_answer_at_max_tokens_says_so(gateway: str) -> None:
    [found] = open_model(f"openai:echo@{gateway}").generate([Request(user("a b c"), Sampling(max_tokens=2))])
    assert (found.answer, found.finish_reason) == ("a b ", "length")


def test_a_wrong_key_is_said(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_API_KEY", "wrong")
    with pytest.raises(EndpointError, match=r"refused the key \(401\); set SPIRITSAFE_API_KEY"):
        open_model(f"openai:echo@{gateway}")


def test_a_model_that_is_not_served_is_named_with_those_that_are(gateway: str) -> None:
    with pytest.raises(EndpointError, match="does not serve 'other'; it serves: echo"):
        open_model(f"openai:other@{gateway}")


def test_a_server_that_is_not_there_is_out_of_reach() -> None:
    with pytest.raises(EndpointError, match=r"is out of reach .*; is the server running") as caught:
        open_model("openai:m@http://127.0.0.1:9/v1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["openai:m", "openai:@http://h/v1", "openai:m@ftp://h"])
def test_another_form_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="is not openai:NAME@URL"):
        open_model(address)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Misbehave, status: int) -> None:
    busy = JSONResponse({"error": {"message": "busy"}}, status, headers={"retry-after": "0"})
    assert answer(server(*[busy] * (endpoint.TRIES - 1), JSONResponse(GOOD))) == "hello"


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stays_busy_is_given_up_with_what_it_said(server: Misbehave, status: int) -> None:
    address = server(JSONResponse({"error": {"message": "busy today"}}, status))
    with pytest.raises(EndpointError, match=f"/chat/completions: answered {status}: busy today"):
        answer(address)


def test_a_pause_is_at_least_what_the_server_asks_and_grows_on_its_own() -> None:
    assert all(7.25 <= endpoint.pause_s(0, 7.0) <= 7.5 for _ in range(50))
    assert all(0.5 * 2**k * 0.5 <= endpoint.pause_s(k) <= 0.5 * 2**k for k in range(6))
    assert endpoint.pause_s(1000, 1e9) <= endpoint.MOST_PAUSE_S + endpoint.MOST_BACKOFF_S


def test_retry_after_is_seconds_or_a_date_and_nonsense_is_no_wish() -> None:
    assert endpoint.retry_after_s("2.5") == 2.5
    assert 50 < endpoint.retry_after_s(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert {endpoint.retry_after_s(x) for x in (None, "", "soon", "-3", "nan")} == {0.0}


def test_a_server_that_drips_for_ever_is_left_in_time(server: Misbehave) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await anyio.sleep(0.05)

    model = endpoint.open_endpoint("", server(StreamingResponse(drip())).removeprefix("openai:"))
    with pytest.raises(endpoint.Busy, match=r"no whole answer within 0\.3 s"):
        model.answer(Request(user("hi"), Sampling()), timeout_s=0.3)


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("<html>"),
        JSONResponse([]),
        JSONResponse({}),
        JSONResponse({"choices": []}),
        JSONResponse({"choices": None}),
        JSONResponse({"choices": [{"message": "hello", "finish_reason": "stop"}]}),
        JSONResponse({"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}),
        JSONResponse({**GOOD, "usage": ["x"]}),
    ],
    ids=lambda r: bytes(r.body).decode()[:30],
)
def test_a_malformed_answer_is_one_line(server: Misbehave, response: Response) -> None:
    address = server(response)
    with pytest.raises(EndpointError) as caught:
        answer(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("models", [{}, {"data": ["m"]}, {"data": None}, {"data": [{}]}])
def test_a_malformed_list_of_models_is_one_line(server: Misbehave, models: Any) -> None:
    address = server(JSONResponse(GOOD), models=models)
    with pytest.raises(EndpointError, match="does not list its models; is it OpenAI-compatible"):
        open_model(address)


def test_an_answer_without_text_is_an_empty_one(server: Misbehave) -> None:
    choice = {"message": {"content": None}, "finish_reason": "content_filter"}
    [found] = open_model(server(JSONResponse({"choices": [choice]}))).generate([Request(user("hi"), Sampling())])
    assert (found.answer, found.finish_reason) == ("", "content_filter")


def test_what_http_cannot_do_is_said(server: Misbehave) -> None:
    model = open_model(server(JSONResponse(GOOD)))
    [found] = model.generate([Request(user("hi"), Sampling())])
    with pytest.raises(ModelError, match="cannot score given answers"):
        model.score([found])
    with pytest.raises(ModelError, match="cannot leave the user's turn open"):
        model.generate([Request((), Sampling(), open_turn="user")])
