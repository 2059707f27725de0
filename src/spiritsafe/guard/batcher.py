"""Has requests answered by a model, so that no account and no request holds up or fails the others.

A model that gains nothing from many at once (an endpoint) is asked for each request alone, by several threads.
Any other answers waves: those that came within `window_s` of one another. A model that may be called by two threads
has two queues: one for accounts that wait for little, and one for long requests and for accounts that wait for much.
If a wave fails, its halves are asked again, so that only the culprit gets the error.

Every exchange is in the log before its last text leaves; one that got no answer is logged too.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from spiritsafe.errors import EndpointError, RunError, SpiritsafeError
from spiritsafe.guard.log import Log, Unwritable, recordable
from spiritsafe.guard.waiting import Answered, OnPiece, Turns, Waiter, waiter_of
from spiritsafe.models.base import Model, Request, failed
from spiritsafe.record import ErrorKind, Exchange

# An account that waits for more tokens than this, prompts included, waits in the second queue: six usual requests.
QUICK_TOKENS = 2048
# One account's and everybody's share of a wave in tokens: what a small model writes within half a minute on two cores.
ACCOUNT_TOKENS = 4096
WAVE_TOKENS = 32_768
STOPPED = RunError("gateway", "is shutting down")


@dataclass(frozen=True)
class Way:
    """How a model is asked: by how many threads at once, and whether one request at a time."""

    threads: int
    alone: bool


def way_of(model: Model) -> Way:
    """What a model says of itself with the optional attributes `threads` and `alone`; one thread, in waves, if not."""
    return Way(int(getattr(model, "threads", 1)), bool(getattr(model, "alone", False)))


class Batcher:
    """The workers."""

    def __init__(self, model: Model, *, log: Log, window_s: float, max_batch: int) -> None:
        self._model, self._log, self._window_s, self._max_batch = model, log, window_s, max_batch
        self._way = way_of(model)
        self._quick, self._slow = Turns(), Turns()
        self._owing: Counter[str] = Counter()  # tokens that an account waits for
        self._open: dict[int, Waiter] = {}
        self._changed, self._closed = threading.Condition(), False
        works = self._works()
        self._threads = [threading.Thread(target=work, name="spiritsafe-batcher", daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request, on_piece: OnPiece | None = None, *, top: int = 0) -> Future[Answered]:
        """Queue a request. `on_piece` is called in a worker's thread.

        Raises `RunError` after `close`, `Unwritable` where the log has no room for it.
        """
        waiter = waiter_of(request, on_piece, self._log, top)
        with self._changed:
            if self._closed:
                waiter.teller.end()
                raise STOPPED
            self._open[id(waiter)] = waiter
            self._owing[request.account] += waiter.tokens
            much = self._owing[request.account] > QUICK_TOKENS
        (self._slow if much and self._has_two_queues else self._quick).put(waiter)
        return waiter.answer

    def close(self, bound_s: float | None = None) -> None:
        """Answer what is queued, then end the workers.

        After `bound_s` seconds what is still open gets a `RunError`, and what was sent of it is logged.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: not self._open, bound_s)
            left = list(self._open.values())
        for waiter in left:
            self._fail(waiter, STOPPED)
        self._quick.close()
        self._slow.close()
        if not left:
            for thread in self._threads:
                thread.join()

    @property
    def _has_two_queues(self) -> bool:
        return not self._way.alone and self._way.threads > 1

    def _works(self) -> list[Callable[[], None]]:
        if self._way.alone:
            return [self._answer_each] * self._way.threads
        queues = [self._quick, self._slow] if self._has_two_queues else [self._quick]
        return [partial(self._answer_waves, queue) for queue in queues]

    def _answer_each(self) -> None:
        most = max(1, self._way.threads - self._way.threads // 4)  # a quarter of the threads is for other accounts
        while (waiter := self._quick.one(most)) is not None:
            self._answer([waiter])
            self._quick.done(waiter)

    def _answer_waves(self, queue: Turns) -> None:
        while wave := queue.wave(
            window_s=self._window_s, most=self._max_batch, account_tokens=ACCOUNT_TOKENS, tokens=WAVE_TOKENS
        ):
            self._answer(wave)

    def _answer(self, wave: Sequence[Waiter]) -> None:
        def on_text(index: int, piece: str) -> None:
            wave[index].teller.hear(piece)

        started_s = time.time()
        try:
            exchanges = self._model.generate([waiter.request for waiter in wave], on_text=on_text)
            answered = list(zip(wave, exchanges, strict=True))
        except Exception as error:
            if len(wave) == 1:
                self._fail(wave[0], error, started_s)
                return
            for waiter in wave:
                waiter.teller.hush()  # it is written anew
            middle = len(wave) // 2
            self._answer(wave[:middle])
            self._answer(wave[middle:])
            return
        self._keep([(waiter, recordable(exchange, waiter.request)) for waiter, exchange in answered])

    def _keep(self, answered: Sequence[tuple[Waiter, Exchange]]) -> None:
        """Log exchanges, then answer their waiters."""
        given = [(waiter, waiter.teller.given(exchange)) for waiter, exchange in answered if self._claim(waiter)]
        try:
            self._log.keep([exchange for _, exchange in given])
        except Unwritable as error:
            for waiter, _ in given:
                self._owe(waiter, error)
            return
        scored = [(waiter, exchange) for waiter, exchange in given if waiter.top and exchange.token_ids]
        for waiter, exchange in given:
            if not (waiter.top and exchange.token_ids):
                waiter.answer.set_result(Answered(exchange))
                self._forget(waiter)
        self._score(scored)

    def _score(self, scored: Sequence[tuple[Waiter, Exchange]]) -> None:
        """Answer with candidates: in one pass, or each alone if that fails."""
        if not scored:
            return
        try:
            top = max(waiter.top for waiter, _ in scored)
            scores = self._model.score([exchange for _, exchange in scored], top_k=top)
            rows = list(zip(scored, scores, strict=True))
        except Exception as error:
            if len(scored) > 1:
                for each in scored:
                    self._score([each])
                return
            scored[0][0].answer.set_exception(error)
            self._forget(scored[0][0])
            return
        for (waiter, exchange), found in rows:
            same = found.token_ids == exchange.token_ids
            waiter.answer.set_result(Answered(exchange, found if same else None))
            self._forget(waiter)

    def _fail(self, waiter: Waiter, error: Exception, started_s: float = 0.0) -> None:
        """Log that a request got no answer, with what was sent of one, then tell its waiter."""
        if not self._claim(waiter):
            return
        said = str(error) if isinstance(error, SpiritsafeError) else f"{type(error).__name__}: {error}"
        exchange = failed(self._model.address, self._model.digest, waiter.request, one_line(said), kind_of(error))
        exchange = exchange.model_copy(update={"started_at_s": started_s or time.time()})
        try:
            self._log.keep([waiter.teller.given(exchange)])
        except Unwritable:
            self._owe(waiter, error)
            return
        waiter.answer.set_exception(error)
        self._forget(waiter)

    def _owe(self, waiter: Waiter, error: Exception) -> None:
        """The log takes no line: what is out already is written later, and nothing more goes out."""
        if waiter.teller.sent:
            exchange = failed(self._model.address, self._model.digest, waiter.request, one_line(str(error)), "passing")
            self._log.owe(waiter.teller.given(exchange))
        waiter.answer.set_exception(error)
        self._forget(waiter)

    def _claim(self, waiter: Waiter) -> bool:
        """Whether the caller is the first to settle it; nothing more is streamed then."""
        with self._changed:
            first, waiter.over = not waiter.over, True
        waiter.teller.hush()
        return first

    def _forget(self, waiter: Waiter) -> None:
        waiter.teller.end()
        with self._changed:
            self._open.pop(id(waiter), None)
            self._owing[waiter.request.account] -= waiter.tokens
            self._changed.notify_all()


def kind_of(error: BaseException) -> ErrorKind:
    """Who can mend what a model raised: another time may, or the model has to."""
    return "passing" if isinstance(error, EndpointError | RunError) else "model"


def one_line(text: str) -> str:
    """A text without line breaks, cut to 500 characters, that any record can hold."""
    return " ".join(text.split())[:500].encode(errors="replace").decode()
