"""The gateway as an ASGI app, OpenAI-compatible: `/v1/chat/completions`, `/v1/models`, `/health`.

Errors are OpenAI's error JSON: 400 bad body, 401 key, 404 model or path, 413 body above 1 MiB, 429 too
many answers pending for an account, 500 and 503 model or log. Risk control is the model's: hand in a
`guarded:` one.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from spiritsafe.guard.batcher import Batcher
from spiritsafe.guard.gateway import ApiError, Gateway, failure, log_keeper
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.stream import Events, sse
from spiritsafe.guard.wire import Head, completion, model_list
from spiritsafe.models.base import Model, exchange_id

MAX_BODY_BYTES = 1 << 20


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
) -> Starlette:
    """A gateway that serves `model` as `name` and appends every exchange to the JSONL file `log`.

    `max_tokens` is the default where a client names none. Requests that come within `window_s` seconds
    of one another are generated together, at most `max_batch`; an account may wait for `max_pending`.
    `logprobs` is how many candidates a token clients may have with their log-probabilities; 0: none at all,
    since they are what a student learns fastest from.
    """
    batcher = Batcher(model, keep=log_keeper(log), window_s=window_s, max_batch=max_batch)
    limits = {"max_tokens": max_tokens, "max_pending": max_pending, "logprobs": logprobs}
    gateway = Gateway(model, keys, batcher, name=name, **limits)
    started_at_s = time.time()

    async def chat(request: HttpRequest) -> Response:
        return await _chat(gateway, request)

    async def models(request: HttpRequest) -> Response:
        await _account(gateway, request)
        return JSONResponse(model_list(name, started_at_s))

    async def health(request: HttpRequest) -> Response:
        return JSONResponse({"status": "ok", "model": name, "digest": model.digest})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(gateway.close)

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models),
        Route("/health", health),
    ]
    handlers = {ApiError: _api_error, HTTPException: _http_error, Exception: _any_error}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


async def _chat(gateway: Gateway, request: HttpRequest) -> Response:
    account = await _account(gateway, request)
    body = gateway.body_of(await _read(request))
    requests = gateway.requests_of(body, account)
    head = Head(gateway.name, f"chatcmpl-{exchange_id(gateway.model.digest, requests[0])}", time.time())
    if body.stream:
        events = Events()
        events.start(gateway, requests, top=body.top_logprobs or 0)
        lines = sse(head, body, events, await events.next())
        return StreamingResponse(lines, media_type="text/event-stream", headers={"cache-control": "no-cache"})
    futures = [asyncio.wrap_future(future) for future in gateway.submit(requests, top=body.top_logprobs or 0)]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    answered = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise failure(answer)
        answered.append(answer)
    return JSONResponse(completion(head, answered, body))


async def _account(gateway: Gateway, request: HttpRequest) -> str:
    try:
        return await run_in_threadpool(gateway.account_of, request.headers.get("authorization", ""))
    except Exception as error:
        raise failure(error) from None


async def _read(request: HttpRequest) -> bytes:
    """The body. Raises `ApiError` 413 before more than the limit is held."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", code="request_too_large")
    return bytes(data)


async def _api_error(request: HttpRequest, error: Exception) -> Response:
    shown = failure(error)
    return JSONResponse(shown.body, shown.status, shown.headers)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    shown = ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
    return JSONResponse(shown.body, shown.status, error.headers)


async def _any_error(request: HttpRequest, error: Exception) -> Response:
    return await _api_error(request, error)
