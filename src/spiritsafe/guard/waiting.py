"""Who waits for an answer: what was told of it so far, and whose turn it is."""

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from spiritsafe.guard.log import Log, Unwritable, line_size, size_of
from spiritsafe.models.base import Request, Scores
from spiritsafe.record import Exchange

OnPiece = Callable[[str], None]
# English on most tokenizers; only how requests are grouped rests on it.
CHARS_A_TOKEN = 4


@dataclass(frozen=True)
class Answered:
    """An answer, and its tokens' likeliest candidates where they were wanted and the model can say."""

    exchange: Exchange
    scores: Scores | None = None


class Teller:
    """Passes an answer's text on, one piece late: the last piece leaves once the exchange is in the log.

    What is passed on has room in the log. A text that the log has no room for, or that is written anew after an
    error, is held until its end.
    """

    def __init__(self, on_piece: OnPiece | None, log: Log, reserved: int) -> None:
        self.sent = ""
        self._on_piece, self._log, self._reserved = on_piece, log, reserved
        self._held, self._quiet, self._lock = "", on_piece is None, threading.Lock()

    def hear(self, piece: str) -> None:
        """Another piece, which is held; the one before goes out."""
        with self._lock:
            if self._quiet or self._on_piece is None:
                return
            ready, self._held = self._held, piece
            if not ready:
                return
            try:
                self._log.reserve(size_of(ready))
            except Unwritable:
                self._quiet = True
                return
            self._reserved += size_of(ready)
            self.sent += ready
            self._on_piece(ready)

    def hush(self) -> None:
        """Pass nothing on any more."""
        with self._lock:
            self._quiet = True

    def given(self, exchange: Exchange) -> Exchange:
        """The exchange with what the client has once this ends: the answer, or what was sent of another."""
        self.hush()
        going_on = not exchange.error_kind and exchange.answer.startswith(self.sent)
        if going_on or self.sent == exchange.answer:
            return exchange
        return exchange.model_copy(update={"sent": self.sent})

    def end(self) -> None:
        """The exchange is logged: its room is free."""
        self._log.release(self._reserved)
        self._reserved = 0


@dataclass(eq=False)
class Waiter:
    """A request with the future of its answer, whom to tell of its text, and how many candidates it wants.

    `tokens` is what it costs, about: those of its prompt and of the longest answer.
    """

    request: Request
    teller: Teller
    top: int
    answer: Future[Answered] = field(default_factory=Future)
    tokens: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        self.tokens = tokens_of(self.request)
        self.answer.set_running_or_notify_cancel()  # a client that leaves cannot cancel it


def waiter_of(request: Request, on_piece: OnPiece | None, log: Log, top: int) -> Waiter:
    """A request that waits; the log keeps room for its line. Raises `Unwritable` where it cannot."""
    size = line_size(request)
    log.reserve(size)
    return Waiter(request, Teller(on_piece, log, size), top)


def tokens_of(request: Request) -> int:
    """Tokens that a request may cost, about."""
    chars = sum(len(message.content) for message in request.messages)
    return chars // CHARS_A_TOKEN + request.sampling.max_tokens


class Turns:
    """A queue in which accounts take turns, each in its own order."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Waiter]] = {}
        self._running: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, waiter: Waiter) -> None:
        """At the end of its account's queue."""
        with self._changed:
            self._waiting.setdefault(waiter.request.account, deque()).append(waiter)
            self._changed.notify()

    def close(self) -> None:
        """Nothing more comes: `one` and `wave` end when the queue is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def one(self, most_running: int) -> Waiter | None:
        """The next, of an account with fewer than `most_running` under way; None at the end."""
        with self._changed:
            while True:
                for account in list(self._waiting):
                    if self._running[account] < most_running:
                        self._running[account] += 1
                        return self._next(account)
                if self._closed and not self._waiting:
                    return None
                self._changed.wait()

    def done(self, waiter: Waiter) -> None:
        """One that `one` gave is answered."""
        with self._changed:
            self._running[waiter.request.account] -= 1
            self._changed.notify()

    def wave(self, *, window_s: float, most: int, account_tokens: int, tokens: int) -> list[Waiter]:
        """The next to be answered together: account by account in turn; empty at the end.

        Waits until nobody came for `window_s` or `most` are there. No account takes more than `account_tokens`,
        nor all together more than `tokens`, beyond one request.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._num() < most and not self._closed:
                before = self._num()
                self._changed.wait(window_s)
                if self._num() == before:
                    break
            return self._picked(most, account_tokens, tokens)

    def _picked(self, most: int, account_tokens: int, tokens: int) -> list[Waiter]:
        wave: list[Waiter] = []
        used: Counter[str] = Counter()
        picked = True
        while picked and len(wave) < most:
            picked = False
            for account in list(self._waiting)[: most - len(wave)]:
                cost = self._waiting[account][0].tokens
                own_fits = not used[account] or used[account] + cost <= account_tokens
                if own_fits and (not wave or used.total() + cost <= tokens):
                    used[account] += cost
                    wave.append(self._next(account))
                    picked = True
        return wave

    def _num(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _next(self, account: str) -> Waiter:
        queue = self._waiting.pop(account)
        waiter = queue.popleft()
        if queue:
            self._waiting[account] = queue  # behind the other accounts
        return waiter
