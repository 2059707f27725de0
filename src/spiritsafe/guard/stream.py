"""A completion as server-sent events: pieces of all choices as they come, each choice's end, usage, `[DONE]`."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from functools import partial

from spiritsafe.guard.batcher import Answered
from spiritsafe.guard.gateway import Gateway, failure
from spiritsafe.guard.wire import ChatBody, Head, Json, chunk, logprobs_of, usage_chunk
from spiritsafe.models.base import Request

Event = tuple[int, str | Answered | BaseException]


class Events:
    """Pieces and ends of the choices of one completion, carried from the worker's thread to the loop."""

    def __init__(self) -> None:
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def start(self, gateway: Gateway, requests: Sequence[Request], *, top: int) -> None:
        """Submit the requests. Raises `ApiError` where the gateway does not take them."""
        for index, future in enumerate(gateway.submit(requests, self._tell, top=top)):
            future.add_done_callback(partial(self._ended, index))

    async def next(self) -> Event:
        """The next event. Raises `ApiError` where the model failed."""
        index, what = await self._queue.get()
        if isinstance(what, BaseException):
            raise failure(what)
        return index, what

    def _ended(self, index: int, future: Future[Answered]) -> None:
        self._tell(index, future.exception() or future.result())

    def _tell(self, index: int, what: str | Answered | BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, what))


async def sse(head: Head, body: ChatBody, events: Events, first: Event) -> AsyncIterator[bytes]:
    """The stream's lines, given its first event; an error on the way is sent as OpenAI's error JSON."""
    try:
        async for part in _parts(head, body, events, first):
            yield _line(json.dumps(part))
    except Exception as error:
        yield _line(json.dumps(failure(error).body))
        return
    yield _line("[DONE]")


async def _parts(head: Head, body: ChatBody, events: Events, first: Event) -> AsyncIterator[Json]:
    num = body.n or 1
    sent, done = [""] * num, dict[int, Answered]()
    for index in range(num):
        yield chunk(head, index, {"role": "assistant", "content": ""})
    event: Event | None = first
    while len(done) < num:
        index, what = event or await events.next()
        event = None
        if isinstance(what, Answered):
            done[index] = what
            for part in _end(head, index, what, sent[index], body):
                yield part
        else:
            sent[index] += str(what)
            yield chunk(head, index, {"content": what})
    if body.stream_options and body.stream_options.include_usage:
        yield usage_chunk(head, [done[index].exchange for index in range(num)])


def _end(head: Head, index: int, answered: Answered, sent: str, body: ChatBody) -> list[Json]:
    """What was not streamed of the answer, its log-probabilities, and why it ended."""
    rest = answered.exchange.answer.removeprefix(sent)
    pieces = [chunk(head, index, {"content": rest})] if rest else []
    return [*pieces, chunk(head, index, {}, answered.exchange.finish_reason, logprobs_of(answered, body))]


def _line(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
