"""A completion as server-sent events: pieces of all choices as they come, each choice's end, usage, `[DONE]`.

While there is nothing to send, a comment keeps the connection alive.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from functools import partial

from starlette.concurrency import run_in_threadpool

from spiritsafe.guard.gateway import Gateway, failure, refusal
from spiritsafe.guard.waiting import Answered
from spiritsafe.guard.wire import ChatBody, Head, Json, chunk, logprobs_of, usage_chunk
from spiritsafe.models.base import Request

Event = tuple[int, str | Answered | BaseException]
# An error within so long is a status of its own; after it the stream has begun, and errors are events in it.
FIRST_S = 5.0
# Proxies cut what is silent for a minute.
ALIVE_S = 15.0
# Pieces that wait for a slow reader; beyond, they are joined, so that only the text itself is held.
MOST_PIECES = 64


class Events:
    """Pieces and ends of the choices of one completion, carried from the worker's thread to the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events = deque[Event]()
        self._came = asyncio.Event()

    async def start(self, gateway: Gateway, requests: Sequence[Request], *, top: int) -> None:
        """Submit the requests. Raises `ApiError` where the gateway does not take them."""
        submitted = await run_in_threadpool(gateway.submit, requests, self._tell, top=top)
        for index, future in enumerate(submitted):
            future.add_done_callback(partial(self._ended, index))

    async def first(self) -> Event | None:
        """The first event, or None where it does not come soon. Raises `ApiError` where the model failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                return await self.next()
        return None

    async def next(self) -> Event:
        """The next event. Raises `ApiError` where the model failed."""
        while not self._events:
            self._came.clear()
            await self._came.wait()
        index, what = self._events.popleft()
        if isinstance(what, BaseException):
            raise failure(what)
        if isinstance(what, Answered) and what.exchange.error_kind:
            raise refusal(what.exchange)
        return index, what

    def _ended(self, index: int, future: Future[Answered]) -> None:
        self._tell(index, future.exception() or future.result())

    def _tell(self, index: int, what: str | Answered | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._add, index, what)

    def _add(self, index: int, what: str | Answered | BaseException) -> None:
        if isinstance(what, str) and len(self._events) >= MOST_PIECES:
            before, text = self._events[-1]
            if before == index and isinstance(text, str):
                self._events[-1] = (index, text + what)
                return
        self._events.append((index, what))
        self._came.set()


async def sse(head: Head, body: ChatBody, events: Events, first: Event | None) -> AsyncIterator[bytes]:
    """The stream's lines, given its first event; an error on the way is sent as OpenAI's error JSON."""
    try:
        async for part in _parts(head, body, events, first):
            yield _line(json.dumps(part)) if part else b": \n\n"
            # The loop's turn: other connections', and the news that this one is lost, before more is written to it.
            await asyncio.sleep(0)
    except Exception as error:
        yield _line(json.dumps(failure(error).body))
        return
    yield _line("[DONE]")


async def _parts(head: Head, body: ChatBody, events: Events, first: Event | None) -> AsyncIterator[Json | None]:
    """The stream's parts; None is a sign of life."""
    num = body.n or 1
    sent, done = [0] * num, dict[int, Answered]()
    for index in range(num):
        yield chunk(head, index, {"role": "assistant", "content": ""})
    event = first
    while len(done) < num:
        if event is None:
            try:
                async with asyncio.timeout(ALIVE_S):
                    event = await events.next()
            except TimeoutError:
                yield None
                continue
        index, what = event
        event = None
        if isinstance(what, Answered):
            done[index] = what
            for part in _end(head, index, what, sent[index], body):
                yield part
        else:
            sent[index] += len(str(what))
            yield chunk(head, index, {"content": what})
    if body.stream_options and body.stream_options.include_usage:
        yield usage_chunk(head, [done[index].exchange for index in range(num)])


def _end(head: Head, index: int, answered: Answered, num_sent: int, body: ChatBody) -> list[Json]:
    """What was not streamed of the answer, its log-probabilities, and why it ended."""
    exchange = answered.exchange
    rest = exchange.answer[num_sent:] if exchange.sent is None else ""
    pieces = [chunk(head, index, {"content": rest})] if rest else []
    return [*pieces, chunk(head, index, {}, exchange.finish_reason, logprobs_of(answered, body))]


def _line(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
