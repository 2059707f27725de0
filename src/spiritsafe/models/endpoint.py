"""`openai:NAME@URL`: any OpenAI-compatible server.

Which key it is sent says `keys`, which parameters `provider`. What may pass (429, 5xx, a broken connection or body,
no answer in time) is tried again with growing, jittered pauses, never sooner than the server asks. A request that
the server refuses, or does not answer however often it is asked, gets a failed exchange in its place; only what
concerns every request (the key, the money, the route) is raised. Answers carry text only: no token ids.
"""

import random
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from spiritsafe.errors import EndpointError, ModelError, UsageError
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, exchange_id, identity
from spiritsafe.models.keys import host_of, masked
from spiritsafe.models.provider import MAY_GO, Options, Parameters, options_of, read_options
from spiritsafe.models.refused import Busy, NoRoute, Refused
from spiritsafe.models.reply import Reply, read_reply
from spiritsafe.models.served import Server
from spiritsafe.progress import warn
from spiritsafe.record import Exchange, digest_of

T = TypeVar("T")
TRIES = 5
TIMEOUT_S = 300.0
FIRST_PAUSE_S, MOST_BACKOFF_S, MOST_PAUSE_S = 0.5, 30.0, 300.0
ADDRESS = re.compile(r"(?P<name>.+)@(?P<url>https?://[^?#\s]+)(?:\?(?P<options>\S*))?", re.IGNORECASE | re.DOTALL)
FORM = "e.g. openai:my-model@http://127.0.0.1:8000/v1"


class EndpointModel:
    """A model behind HTTP; `batch` requests are under way at once."""

    alone, gives_logprobs = True, False

    def __init__(self, address: str, name: str, url: str, *, batch: int = 16, options: Options | None = None) -> None:
        self.address, self.name, self.url, self.batch = address, name, url.rstrip("/"), batch
        self.options = options or Options()
        extra = [self.options.text] if self.options.text else []
        self.digest = digest_of(["endpoint", self.url, name, *extra])
        self._server = Server(self.url)
        self._parameters = Parameters(options_of(host_of(self._server.url), name, self.options))
        self._check_served()

    @property
    def threads(self) -> int:
        """How many threads may call it at once."""
        return self.batch

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; `on_exchange` sees each as it ends, `on_text` each text in one piece.

        Raises `EndpointError` for what concerns all requests, after what was under way has been passed on.
        """
        from spiritsafe.models.many import answer_all, take_from  # it opens endpoints

        places = defaultdict[str, deque[int]](deque)
        for i, request in enumerate(requests):
            places[exchange_id(self.digest, request)].append(i)
        found: dict[int, Exchange] = {}

        def keep(exchange: Exchange) -> None:
            place = places[exchange.id].popleft()
            found[place] = exchange
            if on_text:
                on_text(place, exchange.answer)
            if on_exchange:
                on_exchange(exchange)

        answer_all(self, take_from(requests), keep, concurrency=self.batch)
        return [found[i] for i in range(len(requests))]

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Not possible: chat completions do not return log-probabilities of given answers."""
        raise ModelError(self.address, "cannot score given answers", "use a local model")

    def answer(self, request: Request, *, timeout_s: float = TIMEOUT_S) -> Exchange:
        """Ask once, from any thread.

        Raises `Busy` if it may go well later, `Refused` if this request never will, `EndpointError` if none will.
        """
        return self.answer_with(request, {}, timeout_s=timeout_s)[0]

    def answer_with(
        self, request: Request, extra: dict[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> tuple[Exchange, dict[str, Any]]:
        """Ask once with `extra` fields in the body; also returns the answer's choice as the server wrote it."""
        if request.open_turn == "user":
            raise ModelError(self.address, "cannot leave the user's turn open", "use a local model")
        started = time.time()
        data, unsent = self._ask(request, extra, timeout_s)
        try:
            reply = read_reply(data)
        except ValueError as error:
            what = f"answered something else than a chat completion ({error})"
            raise Busy(self.address, what, "is it OpenAI-compatible?", status=200) from None
        if reply.finish_reason == "error":
            raise Busy(self.address, "broke off its answer (finish_reason error)", status=200)
        return self._exchange(request, reply, unsent, started), data["choices"][0]

    def post(self, path: str, body: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Ask the server once, from any thread; raises as `answer` does."""
        found: dict[str, Any] = self._send("POST", path, body, timeout_s)
        return found

    def _exchange(self, request: Request, reply: Reply, unsent: tuple[str, ...], started: float) -> Exchange:
        # A server that repeats its request's headers in an answer: the key is not stored.
        key = self._server.key
        filtered = reply.finish_reason == "content_filter"
        return Exchange(
            **identity(self.address, self.digest, request),
            answer=masked(reply.text, key),
            reasoning=masked(reply.reasoning, key),
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            started_at_s=started,
            elapsed_s=time.time() - started,
            flags=unsent,
            error="the provider's filter ended the answer" if filtered else "",
            error_kind="filter" if filtered else "",
        )

    def _ask(self, request: Request, extra: dict[str, Any], timeout_s: float) -> tuple[Any, tuple[str, ...]]:
        """The completion; parameters that the server refuses by name are left out once and for all, and said."""
        for _ in range(len(MAY_GO) + 2):
            body, unsent = self._parameters.body(self.name, request)
            try:
                return self._send("POST", "/chat/completions", body | extra, timeout_s), unsent
            except Refused as refused:
                last = refused
                done = self._parameters.learn(body, refused.what, refused.param) if refused.kind == "request" else ""
                if not done:
                    break
                if done != "as before":
                    warn(f"{self.address} {done}")
        raise last

    def _send(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> Any:
        return self._server.ask(method, self.url + path, body, timeout_s)

    def _check_served(self) -> None:
        """Raise for a name that a server's list lacks; a server without a list, or with a part of one, is believed."""
        listed: Any = None
        try:
            listed = patiently(partial(self._send, "GET", "/models", None, TIMEOUT_S), unanswered=False)
        except NoRoute:
            pass
        except Busy as busy:
            if busy.status != 200:
                raise
        served = _names_of(listed)
        if not served or (isinstance(listed, dict) and listed.get("has_more") is True):
            warn(f"{self.address} does not list its models; whether it serves '{self.name}' is not known")
            return
        # Ollama's `:latest`, Google's `models/`, a router's variants (`NAME:free`).
        known = {self.name, f"{self.name}:latest", f"models/{self.name}", self.name.partition(":")[0]}
        if not known & set(served):
            shown = self._server.shown(", ".join(sorted(served)))
            raise EndpointError(self.address, f"does not serve '{self.name}'", f"it serves: {shown}")


def open_endpoint(address: str, rest: str, batch: int = 16) -> EndpointModel:
    """Open `NAME@URL[?OPTIONS]`. Raises `EndpointError` if the server is out of reach or refuses the key."""
    found = ADDRESS.fullmatch(rest)
    if not found:
        raise UsageError(address, "is not openai:NAME@URL", FORM)
    options = read_options(address, found["options"] or "")
    return EndpointModel(address, found["name"], found["url"], batch=batch, options=options)


def patiently(
    attempt: Callable[[], T],
    *,
    tries: int = TRIES,
    unanswered: bool = True,
    wait: Callable[[float], object] | None = None,
) -> T:
    """Attempt up to `tries` times, waiting in between; raises the last `Busy`.

    With `unanswered=False` a server that says nothing at all is given up at once.
    """
    for number in range(tries):
        try:
            return attempt()
        except Busy as busy:
            if number == tries - 1 or (busy.status is None and not unanswered):
                raise
            (wait or time.sleep)(pause_s(number, busy.after_s))
    raise ValueError("tries must be at least 1")


def pause_s(number: int, after_s: float = 0.0) -> float:
    """Seconds to wait after failure `number`: doubled each time, jittered so that clients do not come back at once.

    Never less than the server's own `after_s`, up to five minutes.
    """
    backoff = min(MOST_BACKOFF_S, FIRST_PAUSE_S * 2.0**number)
    return min(MOST_PAUSE_S, after_s) + backoff * random.uniform(0.5, 1.0)


def _names_of(listed: Any) -> list[str]:
    """Model names of a list in any of the forms that servers give it."""
    if isinstance(listed, dict):
        listed = listed.get("data") or listed.get("models")
    entries = listed if isinstance(listed, list) else []
    names = [e.get("id") or e.get("name") if isinstance(e, dict) else e for e in entries]
    return [name for name in names if isinstance(name, str)]
