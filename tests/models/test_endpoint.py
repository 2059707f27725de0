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
from spiritsafe.models import Request, ask, endpoint, open_model, refused, user
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
    assert [e.answer for e in found] == [f"{i} grüße" for i in range(20)]
    assert sorted(texts) == list(enumerate(e.answer for e in found))
    assert sorted(told) == sorted(e.answer for e in found)
    assert all(e.usage.completion_tokens == 2 and e.finish_reason == "stop" for e in found)
    logged = {e.sampling.seed: e for e in read_jsonl(tmp_path / "log.jsonl", Exchange)}
    for exchange in found:
        seed = (exchange.sampling.seed or 0) & (2**31 - 1)  # what is sent of it
        assert logged[seed].sampling == exchange.sampling.model_copy(update={"seed": seed})
    assert {e.account for e in logged.values()} == {"alice"}


def test_an_answer_at_max_tokens_says_so(gateway: str) -> None:
    [found] = open_model(f"openai:echo@{gateway}").generate([Request(user("a b c"), Sampling(max_tokens=2))])
    assert (found.answer, found.finish_reason) == ("a b ", "length")


def test_a_wrong_key_is_said(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIRITSAFE_API_KEY", "wrong")
    with pytest.raises(EndpointError, match=r"refused the key \(401\): .*; set SPIRITSAFE_KEY_127_0_0_1 to a key"):
        open_model(f"openai:echo@{gateway}")


def test_a_model_that_is_not_served_is_named_with_those_that_are(gateway: str) -> None:
    with pytest.raises(EndpointError, match="does not serve 'other'; it serves: echo"):
        open_model(f"openai:other@{gateway}")


def test_a_server_that_is_not_there_is_out_of_reach() -> None:
    with pytest.raises(EndpointError, match=r"is out of reach .*; is the server running") as caught:
        open_model("openai:m@http://127.0.0.1:9/v1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["openai:m", "openai:@http://h/v1", "openai:m@ftp://h", "openai:m@http://h/v1#x"])
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
    [found] = open_model(address).generate([Request(user("hi"), Sampling())])
    assert (found.answer, found.finish_reason, found.error_kind) == ("", "error", "passing")
    assert f"/chat/completions: answered {status}: busy today" in found.error


def test_a_pause_is_at_least_what_the_server_asks_and_grows_on_its_own() -> None:
    assert all(7.25 <= endpoint.pause_s(0, 7.0) <= 7.5 for _ in range(50))
    assert all(0.5 * 2**k * 0.5 <= endpoint.pause_s(k) <= 0.5 * 2**k for k in range(6))
    assert endpoint.pause_s(1000, 1e9) <= endpoint.MOST_PAUSE_S + endpoint.MOST_BACKOFF_S


def test_retry_after_is_seconds_or_a_date_and_nonsense_is_no_wish() -> None:
    assert refused.retry_after_s("2.5") == 2.5
    assert 50 < refused.retry_after_s(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert {refused.retry_after_s(x) for x in (None, "", "soon", "-3", "nan")} == {0.0}


def test_a_server_that_drips_for_ever_is_left_in_time(server: Misbehave) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await anyio.sleep(0.05)

    model = endpoint.open_endpoint("", server(StreamingResponse(drip())).removeprefix("openai:"))
    with pytest.raises(refused.Busy, match=r"no whole answer within 0\.3 s"):
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
        JSONResponse({"choices": [{"message": {"content": "half"}, "finish_reason": "error"}]}),
    ],
    ids=lambda r: bytes(r.body).decode()[:30],
)
def test_a_malformed_answer_fails_that_request_alone_in_one_line(server: Misbehave, response: Response) -> None:
    good = JSONResponse(GOOD)
    model = open_model(server(*[response] * endpoint.TRIES, good), batch=1)
    first, second = model.generate([Request(user("hi"), Sampling(seed=i)) for i in range(2)])
    assert (first.error_kind, first.answer, second.answer) == ("passing", "", "hello")
    assert first.error
    assert "\n" not in first.error


@pytest.mark.parametrize(
    "models",
    [{}, {"data": None}, {"data": [{}]}, PlainTextResponse("nothing here", 404), PlainTextResponse("<html>")],
    ids=["empty", "null", "nameless", "404", "a page"],
)
def test_a_server_that_does_not_list_its_models_is_believed_in_a_line(
    server: Misbehave, models: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(server(JSONResponse(GOOD), models=models)) == "hello"
    assert "does not list its models; whether it serves 'm' is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    "models",
    [["m"], [{"id": "m"}], {"data": ["m"]}, {"models": [{"name": "models/m"}]}, {"data": [{"id": "m:latest"}]}],
)
def test_a_list_of_models_is_read_in_every_form(
    server: Misbehave, models: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(server(JSONResponse(GOOD), models=models)) == "hello"
    assert capsys.readouterr().err == ""


def test_an_answer_that_the_provider_filtered_says_so(server: Misbehave) -> None:
    choice = {"message": {"content": None}, "finish_reason": "content_filter"}
    [found] = open_model(server(JSONResponse({"choices": [choice]}))).generate([Request(user("hi"), Sampling())])
    assert (found.answer, found.finish_reason, found.error_kind) == ("", "content_filter", "filter")


def test_one_request_s_refusal_leaves_its_neighbours_and_is_not_asked_again(server: Misbehave) -> None:
    long = JSONResponse({"error": {"message": "This model's maximum context length is 8 tokens."}}, 400)
    filtered = JSONResponse({"error": {"message": "no", "code": "content_filter"}}, 400)
    model = open_model(server(long, filtered, JSONResponse(GOOD)), batch=1)
    found = model.generate([Request(user("hi"), Sampling(seed=i)) for i in range(3)])
    assert [(e.error_kind, e.answer) for e in found] == [("request", ""), ("filter", ""), ("", "hello")]
    assert found[1].finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (JSONResponse({"error": {"message": "no more", "code": "insufficient_quota"}}, 429), "answered 429: no more"),
        (JSONResponse({"error": {"message": "expired"}}, 401), "wants a key \\(401\\): expired"),
        (JSONResponse({"x": 1}, 307, headers={"location": "http://127.0.0.1:9/"}), "redirects \\(307\\)"),
        (JSONResponse({"detail": "no such model"}, 404), "answered 404: no such model"),
    ],
    ids=lambda x: str(getattr(x, "status_code", "")),
)
def test_what_concerns_every_request_is_raised_once_those_under_way_are_kept(
    server: Misbehave, response: Response, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPIRITSAFE_API_KEY", raising=False)
    model = open_model(server(JSONResponse(GOOD), response), batch=1)
    kept: list[Exchange] = []
    with pytest.raises(EndpointError, match=said):
        model.generate([Request(user("hi"), Sampling(seed=i)) for i in range(5)], on_exchange=kept.append)
    assert [e.answer for e in kept] == ["hello"]


def test_what_http_cannot_do_is_said(server: Misbehave) -> None:
    model = open_model(server(JSONResponse(GOOD)))
    [found] = model.generate([Request(user("hi"), Sampling())])
    with pytest.raises(ModelError, match="cannot score given answers"):
        model.score([found])
    with pytest.raises(ModelError, match="cannot leave the user's turn open"):
        model.generate([Request((), Sampling(), open_turn="user")])
