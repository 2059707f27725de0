"""The gateway as an ASGI app, OpenAI-compatible: `/v1/chat/completions`, `/v1/models`, `/health`.

Errors are OpenAI's error JSON: 400 bad body, or more than the model can; 401 key, 404 model or path, 408 body too
slow, 413 body too large, 415 body compressed, 429 too many answers pending for an account, 500 and 503 model or log.
Risk control is the model's: hand in a `guarded:` one.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from spiritsafe.errors import printable
from spiritsafe.guard.batcher import Batcher
from spiritsafe.guard.gateway import ApiError, Gateway, failure, refusal
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.log import Log, Unwritable
from spiritsafe.guard.stream import Events, sse
from spiritsafe.guard.waiting import Answered
from spiritsafe.guard.wire import ChatBody, Head, completion, model_list
from spiritsafe.models.base import Model, Request, exchange_id

MAX_BODY_BYTES = 1 << 20
BODY_S = 60.0
ROUTES = "POST /v1/chat/completions, GET /v1/models, GET /v1/models/NAME, GET /health"


def create_app(
    model: Model,
    *,
    keys: Keys,
    log: Path,
    name: str,
    max_tokens: int = 256,
    window_s: float = 0.02,
    max_batch: int = 64,
    max_pending: int = 256,
    logprobs: int = 0,
    max_body_bytes: int = MAX_BODY_BYTES,
    origins: Sequence[str] = (),
) -> Starlette:
    """A gateway that serves `model` as `name` and appends every exchange to the JSONL file `log`.

    `max_tokens` is the default where a client names none. Requests that come within `window_s` seconds
    of one another are generated together, at most `max_batch`; an account may wait for `max_pending`.
    `logprobs` is how many candidates a token clients may have with their log-probabilities; 0: none at all,
    since they are what a student learns fastest from. Pages of `origins` may ask from a browser.
    `state.drain(seconds)` stops it: what is open after so long gets an error.
    """
    kept = Log(log)
    batcher = Batcher(model, log=kept, window_s=window_s, max_batch=max_batch)
    limits = {"max_tokens": max_tokens, "max_pending": max_pending, "logprobs": logprobs}
    gateway = Gateway(model, keys, batcher, kept, name=name, **limits)
    started_at_s = time.time()

    async def chat(request: HttpRequest) -> Response:
        return await _chat(gateway, request, max_body_bytes)

    async def models(request: HttpRequest) -> Response:
        await _account(gateway, request)
        entries = model_list(name, started_at_s)
        asked = request.path_params.get("model")
        if asked not in (None, name):
            raise gateway.no_model(str(asked))
        return JSONResponse(entries["data"][0] if asked else entries)

    async def health(request: HttpRequest) -> Response:
        return await _health(gateway)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(gateway.close)

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", models),
        Route("/health", health),
    ]
    handlers = {ApiError: _api_error, HTTPException: _http_error, Exception: _any_error}
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    middleware = [Middleware(_Front), *([cors] if origins else [])]
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan)
    app.state.drain = gateway.close
    return app


class _Front:
    """Before the routes: slashes too many are none, and a body of two lengths ends the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = {key for key, _ in scope["headers"]}
            if {b"content-length", b"transfer-encoding"} <= names:  # RFC 9112, 6.1: a proxy may see another body
                shown = ApiError(400, "A body has Content-Length or Transfer-Encoding, not both.")
                await JSONResponse(shown.body, 400, {"connection": "close"})(scope, receive, send)
                return
            scope["path"] = re.sub("/+", "/", scope["path"])
        await self._app(scope, receive, send)


async def _health(gateway: Gateway) -> Response:
    try:
        await run_in_threadpool(gateway.log.check)
    except Unwritable as error:
        return JSONResponse({"status": "failing", "model": gateway.name, "reason": failure(error).args[0]}, 503)
    return JSONResponse({"status": "ok", "model": gateway.name, "digest": gateway.model.digest})


async def _chat(gateway: Gateway, request: HttpRequest, max_body_bytes: int) -> Response:
    account = await _account(gateway, request)
    _plain(request.headers.get("content-encoding", ""))
    data = await _read(request, max_body_bytes)
    body, requests, head = await run_in_threadpool(_asked, gateway, data, account)  # a long body holds up none other
    top = body.top_logprobs or 0
    if body.stream:
        events = Events()
        await events.start(gateway, requests, top=top)
        lines = sse(head, body, events, await events.first())
        return StreamingResponse(lines, media_type="text/event-stream", headers={"cache-control": "no-cache"})
    submitted = await run_in_threadpool(gateway.submit, requests, top=top)
    futures = [asyncio.wrap_future(future) for future in submitted]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    answered: list[Answered] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise failure(answer)
        if answer.exchange.error_kind:
            raise refusal(answer.exchange)
        answered.append(answer)
    return JSONResponse(completion(head, answered, body))


def _plain(encodings: str) -> None:
    """Raises `ApiError` 415 for a body that is sent compressed."""
    coded = [name for each in encodings.split(",") if (name := each.strip().lower()) not in ("", "identity")]
    if coded:
        named = printable(", ".join(coded))[:100]
        what = f"The body has Content-Encoding {named}, which is not read here; send it uncompressed."
        raise ApiError(415, what, code="unsupported_content_encoding")


def _asked(gateway: Gateway, data: bytes, account: str) -> tuple[ChatBody, list[Request], Head]:
    """What a body asks for. Raises `ApiError` 400, or 404 for another model's name."""
    body = gateway.body_of(data)
    requests = gateway.requests_of(body, account)
    identity = f"chatcmpl-{exchange_id(gateway.model.digest, requests[0])}"
    return body, requests, Head(gateway.name, identity, time.time())


async def _account(gateway: Gateway, request: HttpRequest) -> str:
    try:
        return await run_in_threadpool(gateway.account_of, request.headers.get("authorization", ""))
    except Exception as error:
        raise failure(error) from None


async def _read(request: HttpRequest, most_bytes: int) -> bytes:
    """The body. Raises `ApiError` 413 before more than the limit is held, 408 where it does not come to its end."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                data += part
                if len(data) > most_bytes:
                    raise ApiError(413, f"The body is larger than {most_bytes} bytes.", code="request_too_large")
    except TimeoutError:
        raise ApiError(408, f"The body did not come within {BODY_S:g} seconds.", code="request_timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "The body broke off.") from None
    return bytes(data)


async def _api_error(request: HttpRequest, error: Exception) -> Response:
    shown = failure(error)
    return JSONResponse(shown.body, shown.status, shown.headers)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = f"; this gateway has {ROUTES}" if error.status_code == 404 else ""
    shown = ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path}{known}")
    return JSONResponse(shown.body, shown.status, error.headers)


async def _any_error(request: HttpRequest, error: Exception) -> Response:
    return await _api_error(request, error)
