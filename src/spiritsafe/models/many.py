"""Many requests to any model: an endpoint is asked by threads, any other model in batches.

Answers are kept in the caller's thread as they come. A request that a server refuses, or does not answer
however often it is asked, is data: a failed exchange in the answer's place.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from queue import SimpleQueue

from spiritsafe.models.base import Model, Request, failed
from spiritsafe.models.endpoint import TIMEOUT_S, TRIES, EndpointModel, patiently
from spiritsafe.models.refused import Busy, Refused
from spiritsafe.record import Exchange

# Gives up to n requests. None now: asked again when an answer has come; none while none is under way: the end.
Take = Callable[[int], Sequence[Request]]


Keep = Callable[[Exchange], None]


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
) -> list[Request]:
    """Answer what `take` gives until it gives no more; `keep` sees each result once, in the order they end.

    The four settings are for endpoints: requests under way at once, tries and seconds for each, and the
    monotonic time after which nothing is tried again. Returns the requests that this time cut. Raises what
    concerns all requests, once those under way have ended and were kept.
    """
    if isinstance(model, EndpointModel):
        one = partial(_one, model, tries=tries, timeout_s=timeout_s, ends_s=ends_s)
        return _threads(one, take, keep, concurrency)
    batch = getattr(model, "batch", concurrency)
    while part := take(batch):
        model.generate(part, on_exchange=keep)
    return []


def _one(
    model: EndpointModel, request: Request, *, tries: int, timeout_s: float, ends_s: float | None
) -> Exchange | Request:
    """The exchange, a failed one if there is no answer; or the request itself, where the time was up."""

    def wait(pause_s: float) -> None:
        left_s = pause_s if ends_s is None else max(0.0, ends_s - time.monotonic())
        time.sleep(min(pause_s, left_s))
        if left_s < pause_s:
            raise TimeoutError

    try:
        return patiently(partial(model.answer, request, timeout_s=timeout_s), tries=tries, wait=wait)
    except TimeoutError:
        return request
    except Busy as busy:
        return failed(model.address, model.digest, request, str(busy), "passing")
    except Refused as refused:
        return failed(model.address, model.digest, request, str(refused), refused.kind)


def _threads(one: Callable[[Request], Exchange | Request], take: Take, keep: Keep, concurrency: int) -> list[Request]:
    """Daemon threads: after Ctrl-C nobody waits for answers that are still under way."""
    asked: SimpleQueue[Request | None] = SimpleQueue()
    said: SimpleQueue[Exchange | Request | BaseException] = SimpleQueue()
    threads: list[threading.Thread] = []
    cut: list[Request] = []
    error: BaseException | None = None
    under_way = 0
    try:
        while True:
            # After an error that concerns all, what is under way is paid for and still kept.
            for request in take(concurrency - under_way) if error is None else ():
                asked.put(request)
                under_way += 1
            while len(threads) < under_way:
                threads.append(threading.Thread(target=_work, args=(one, asked, said), daemon=True))
                threads[-1].start()
            if not under_way:
                break
            result = said.get()
            under_way -= 1
            if isinstance(result, BaseException):
                error = error or result
            elif isinstance(result, Request):
                cut.append(result)
            else:
                keep(result)
    finally:
        for _ in threads:
            asked.put(None)
    if error is not None:
        raise error
    return cut


def _work(
    one: Callable[[Request], Exchange | Request],
    asked: "SimpleQueue[Request | None]",
    said: "SimpleQueue[Exchange | Request | BaseException]",
) -> None:
    while (request := asked.get()) is not None:
        try:
            said.put(one(request))
        except BaseException as error:  # raised again in the caller's thread
            said.put(error)
