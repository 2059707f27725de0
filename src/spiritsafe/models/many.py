"""Many requests to any model: an endpoint is asked by threads, any other model in batches.

Answers are kept in the caller's thread as they come. A request that a server refuses, or does not answer
however often it is asked, is data: an `Unanswered` in the answer's place.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import SimpleQueue

from spiritsafe.errors import SpiritsafeError
from spiritsafe.models.base import Model, Request
from spiritsafe.models.endpoint import TIMEOUT_S, TRIES, Busy, EndpointModel, patiently
from spiritsafe.record import Exchange

# Gives up to n requests. None now: asked again when an answer has come; none while none is under way: the end.
Take = Callable[[int], Sequence[Request]]


@dataclass(frozen=True)
class Unanswered:
    """A request without an answer, and why; `passing` where it may be answered another time, `cut` by the time."""

    request: Request
    error: str
    passing: bool
    cut: bool = False


Keep = Callable[[Exchange | Unanswered], None]


def take_from(requests: Iterable[Request]) -> Take:
    """Hand out the requests in order."""
    left = iter(requests)
    return lambda most: list(islice(left, most))


def answer_all(
    model: Model,
    take: Take,
    keep: Keep,
    *,
    concurrency: int = 16,
    tries: int = TRIES,
    timeout_s: float = TIMEOUT_S,
    ends_s: float | None = None,
) -> None:
    """Answer what `take` gives until it gives no more; `keep` sees each result once, in the order they end.

    The four settings are for endpoints: requests under way at once, tries and seconds for each, and the
    monotonic time after which nothing is tried again. Raises what a model in this process raises.
    """
    if isinstance(model, EndpointModel):
        one = partial(_one, model, tries=tries, timeout_s=timeout_s, ends_s=ends_s)
        _threads(one, take, keep, concurrency)
        return
    batch = getattr(model, "batch", concurrency)
    while part := take(batch):
        model.generate(part, on_exchange=keep)


def _one(
    model: EndpointModel, request: Request, *, tries: int, timeout_s: float, ends_s: float | None
) -> Exchange | Unanswered:
    def wait(pause_s: float) -> None:
        left_s = pause_s if ends_s is None else max(0.0, ends_s - time.monotonic())
        time.sleep(min(pause_s, left_s))
        if left_s < pause_s:
            raise TimeoutError

    try:
        return patiently(partial(model.answer, request, timeout_s=timeout_s), tries=tries, wait=wait)
    except TimeoutError:
        return Unanswered(request, "the time was up before it could be tried again", passing=True, cut=True)
    except SpiritsafeError as error:
        return Unanswered(request, str(error), passing=isinstance(error, Busy))


def _threads(one: Callable[[Request], Exchange | Unanswered], take: Take, keep: Keep, concurrency: int) -> None:
    """Daemon threads: after Ctrl-C nobody waits for answers that are still under way."""
    asked: SimpleQueue[Request | None] = SimpleQueue()
    said: SimpleQueue[Exchange | Unanswered | BaseException] = SimpleQueue()
    threads: list[threading.Thread] = []
    under_way = 0
    try:
        while True:
            for request in take(concurrency - under_way):
                asked.put(request)
                under_way += 1
            while len(threads) < under_way:
                threads.append(threading.Thread(target=_work, args=(one, asked, said), daemon=True))
                threads[-1].start()
            if not under_way:
                return
            result = said.get()
            under_way -= 1
            if isinstance(result, BaseException):
                raise result
            keep(result)
    finally:
        for _ in threads:
            asked.put(None)


def _work(
    one: Callable[[Request], Exchange | Unanswered],
    asked: "SimpleQueue[Request | None]",
    said: "SimpleQueue[Exchange | Unanswered | BaseException]",
) -> None:
    while (request := asked.get()) is not None:
        try:
            said.put(one(request))
        except BaseException as error:  # raised again in the caller's thread
            said.put(error)
