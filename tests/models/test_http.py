"""An answer is bounded however it is packed, a redirect is not followed, a key that comes back is masked."""

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spiritsafe.errors import EndpointError
from spiritsafe.guard.server import serving
from spiritsafe.models import Request, endpoint, open_model, user
from spiritsafe.models.http import MOST_BYTES, Client, NoAnswer
from spiritsafe.record import Exchange, Sampling

KEY = "sk-a-key-to-be-masked"
Serve = Callable[..., str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server that answers every request so; its URL."""
    monkeypatch.setattr(endpoint, "pause_s", lambda *_: 0.0)
    monkeypatch.setenv("SPIRITSAFE_API_KEY", KEY)
    with ExitStack() as stack:

        def start(answer: Callable[[HttpRequest], Response], *, models: Response | None = None) -> str:
            async def complete(request: HttpRequest) -> Response:
                return answer(request)

            async def listed(_: HttpRequest) -> Response:
                return models or JSONResponse({"data": [{"id": "m"}]})

            routes = [Route("/chat/completions", complete, methods=["POST", "GET"]), Route("/models", listed)]
            return stack.enter_context(serving(Starlette(routes=routes)))

        yield start


def packed(content: bytes, encoding: str = "gzip") -> Response:
    """A response with this body and encoding."""
    return Response(content, headers={"content-encoding": encoding, "content-type": "application/json"})


def asked(url: str) -> Exchange:
    """One answer."""
    [found] = open_model(f"openai:m@{url}").generate([Request(user("hi"), Sampling())])
    return found


def test_a_gzip_bomb_is_left_at_the_bound(serve: Serve) -> None:
    bomb = gzip.compress(b" " * (200 * 2**20), compresslevel=9)
    client = Client(serve(lambda _: packed(bomb)))
    tracemalloc.start()
    with pytest.raises(NoAnswer, match="sent more than 16 MiB"):
        client.send("POST", f"{client.url}/chat/completions", {}, 30.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * MOST_BYTES


def test_a_packed_answer_is_read_and_one_that_was_not_asked_for_is_not(serve: Serve) -> None:
    good = json.dumps({"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}).encode()
    assert asked(serve(lambda _: packed(gzip.compress(good)))).answer == "hello"
    assert "packed as 'zstd'" in asked(serve(lambda _: packed(good, "zstd"))).error
    assert "cannot be unpacked" in asked(serve(lambda _: packed(good))).error


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"choices": ' * 50_000, b"9" * 10_000])
def test_hostile_json_fails_that_request_in_one_line(serve: Serve, body: bytes) -> None:
    found = asked(serve(lambda _: Response(body)))
    assert (found.error_kind, "\n" in found.error) == ("passing", False)


def test_a_redirect_is_not_followed_and_its_body_is_no_answer(serve: Serve) -> None:
    good = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    url = serve(lambda _: JSONResponse(good, 302, headers={"location": "/other"}))
    with pytest.raises(EndpointError, match=r"redirects \(302\) and is not followed"):
        asked(url)


def test_a_key_that_a_server_repeats_is_in_no_message_and_no_record(serve: Serve) -> None:
    def echo(request: HttpRequest) -> Response:
        said = request.headers["authorization"]
        return JSONResponse({"choices": [{"message": {"content": said, "reasoning": said}, "finish_reason": "stop"}]})

    found = asked(serve(echo))
    assert (found.answer, found.reasoning) == ("Bearer [key]", "Bearer [key]")
    refuses = serve(lambda r: JSONResponse({"error": {"message": f"no {r.headers['authorization']}"}}, 400))
    assert asked(refuses).error.endswith("answered 400: no Bearer [key]")
    listing = JSONResponse({"data": [{"id": f"x {KEY}"}]})
    with pytest.raises(EndpointError) as caught:
        asked(serve(echo, models=listing))
    assert KEY not in str(caught.value)
