"""Collects concurrent requests into waves: one `model.generate` for each, in one worker thread.

A wave starts when no request came for `window_s` seconds, or at `max_batch`. It ends with its slowest
answer; what comes meanwhile waits for the next. An error in a wave is the error of all its requests. Requests
that want candidates beside their answer's tokens are scored after their wave, in one pass.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from spiritsafe.errors import RunError
from spiritsafe.models.base import Model, Request, Scores
from spiritsafe.record import Exchange

OnPiece = Callable[[str], None]
Keep = Callable[[Sequence[Exchange]], None]


@dataclass(frozen=True)
class Answered:
    """An answer, and its tokens' likeliest candidates where they were wanted and the model can say."""

    exchange: Exchange
    scores: Scores | None = None


@dataclass(frozen=True)
class Waiter:
    """A request with the future of its answer, whom to tell of its text, and how many candidates it wants."""

    request: Request
    answer: Future[Answered]
    on_piece: OnPiece | None
    top: int


class Batcher:
    """The worker. `keep` sees a wave's exchanges before anyone is answered; if it fails, no one is."""

    def __init__(self, model: Model, *, keep: Keep, window_s: float, max_batch: int) -> None:
        self._model, self._keep, self._window_s, self._max_batch = model, keep, window_s, max_batch
        self._waiting: queue.SimpleQueue[Waiter | None] = queue.SimpleQueue()
        self._closing, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="spiritsafe-batcher", daemon=True)
        self._thread.start()

    def submit(self, request: Request, on_piece: OnPiece | None = None, *, top: int = 0) -> Future[Answered]:
        """Queue a request. `on_piece` is called in the worker's thread. Raises `RunError` after `close`."""
        waiter = Waiter(request, Future(), on_piece, top)
        waiter.answer.set_running_or_notify_cancel()  # a client that leaves cannot cancel it
        with self._closing:
            if self._closed:
                raise RunError("gateway", "is shutting down")
            self._waiting.put(waiter)
        return waiter.answer

    def close(self) -> None:
        """Answer what is queued, then end the worker."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            wave, open_ = self._collect()
            if wave:
                self._answer(wave)

    def _collect(self) -> tuple[list[Waiter], bool]:
        """A wave, and whether more may come."""
        wave: list[Waiter] = []
        waiter = self._waiting.get()
        while waiter is not None:
            wave.append(waiter)
            if len(wave) == self._max_batch:
                return wave, True
            try:
                waiter = self._waiting.get(timeout=self._window_s)
            except queue.Empty:
                return wave, True
        return wave, False

    def _answer(self, wave: Sequence[Waiter]) -> None:
        def on_text(index: int, piece: str) -> None:
            on_piece = wave[index].on_piece
            if on_piece:
                on_piece(piece)

        try:
            exchanges = self._model.generate([waiter.request for waiter in wave], on_text=on_text)
            answered = list(zip(wave, exchanges, strict=True))
            self._keep(exchanges)
        except Exception as error:
            for waiter in wave:
                waiter.answer.set_exception(error)
            return
        for waiter, exchange in answered:
            if not (waiter.top and exchange.token_ids):
                waiter.answer.set_result(Answered(exchange))
        self._score([(w, e) for w, e in answered if w.top and e.token_ids])

    def _score(self, answered: Sequence[tuple[Waiter, Exchange]]) -> None:
        if not answered:
            return
        try:
            top = max(waiter.top for waiter, _ in answered)
            scores = self._model.score([exchange for _, exchange in answered], top_k=top)
        except Exception as error:
            for waiter, _ in answered:
                waiter.answer.set_exception(error)
            return
        for (waiter, exchange), found in zip(answered, scores, strict=True):
            same = found.token_ids == exchange.token_ids
            waiter.answer.set_result(Answered(exchange, found if same else None))
