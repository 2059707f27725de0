"""`openai:NAME@URL`: any OpenAI-compatible server.

The key is read from `SPIRITSAFE_API_KEY`, else `OPENAI_API_KEY`. What may pass (429, 5xx, a broken
connection or body, no answer in time) is tried again with growing, jittered pauses, never sooner than the
server asks; other refusals name what the server said. Answers carry text only: no token ids.
"""

import json
import os
import random
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from spiritsafe.errors import EndpointError, ModelError, UsageError
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, identity, told
from spiritsafe.record import Exchange, Usage, digest_of

T = TypeVar("T")
TRIES = 5
TIMEOUT_S = 300.0
FIRST_PAUSE_S, MOST_BACKOFF_S, MOST_PAUSE_S = 0.5, 30.0, 300.0
PASSING = (408, 429, 500, 502, 503, 504, 529)


class Busy(EndpointError):
    """A refusal that may pass; `after_s` is how long the server asks to wait, `status` None where it said nothing."""

    def __init__(self, where: str, what: str, hint: str = "", *, status: int | None, after_s: float = 0.0) -> None:
        super().__init__(where, what, hint)
        self.status, self.after_s = status, after_s


class EndpointModel:
    """A model behind HTTP; `batch` requests are under way at once."""

    def __init__(self, address: str, name: str, url: str, *, batch: int = 16) -> None:
        self.address, self.name, self.url, self.batch = address, name, url.rstrip("/"), batch
        self.digest = digest_of(["endpoint", self.url, name])
        key = os.environ.get("SPIRITSAFE_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
        # As many connections as threads ask: a wait for a free one would count against a request's time.
        self._client = httpx2.Client(
            headers={"authorization": f"Bearer {key}"}, trust_env=False, limits=httpx2.Limits(max_connections=None)
        )
        weakref.finalize(self, self._client.close)
        listed = patiently(partial(self._send, "GET", "/models", None, TIMEOUT_S), unanswered=False)
        try:
            served = sorted(str(m["id"]) for m in listed["data"])
        except (KeyError, TypeError):
            raise EndpointError(address, "does not list its models", "is it OpenAI-compatible?") from None
        if name not in served:
            raise EndpointError(address, f"does not serve '{name}'", f"it serves: {', '.join(served)}")

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; `on_text` sees each answer in one piece."""
        with ThreadPoolExecutor(self.batch) as pool:
            return told(pool.map(lambda r: patiently(partial(self.answer, r)), requests), on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Not possible: chat completions do not return log-probabilities of given answers."""
        raise ModelError(self.address, "cannot score given answers", "use a local model")

    def answer(self, request: Request, *, timeout_s: float = TIMEOUT_S) -> Exchange:
        """Ask once, from any thread. Raises `Busy` where it may go well later, `EndpointError` where it will not."""
        return self.answer_with(request, {}, timeout_s=timeout_s)[0]

    def answer_with(
        self, request: Request, extra: dict[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> tuple[Exchange, dict[str, Any]]:
        """Ask once with `extra` fields in the body; also returns the answer's choice as the server wrote it."""
        if request.open_turn == "user":
            raise ModelError(self.address, "cannot leave the user's turn open", "use a local model")
        started = time.time()
        data = self.post("/chat/completions", body_of(self.name, request) | extra, timeout_s=timeout_s)
        try:
            choice, usage = data["choices"][0], data.get("usage") or {}
            reason = choice["finish_reason"]
            exchange = Exchange(
                **identity(self.address, self.digest, request),
                answer=choice["message"]["content"] or "",
                finish_reason=reason if reason in ("stop", "length", "content_filter") else "stop",
                usage=Usage(
                    prompt_tokens=usage.get("prompt_tokens", 0), completion_tokens=usage.get("completion_tokens", 0)
                ),
                started_at_s=started,
                elapsed_s=time.time() - started,
            )
            return exchange, choice
        except (KeyError, IndexError, TypeError, AttributeError, ValidationError):
            what = "answered something else than a chat completion"
            raise EndpointError(self.address, what, "is it OpenAI-compatible?") from None

    def post(self, path: str, body: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Ask the server once, from any thread; raises as `answer` does."""
        return self._send("POST", path, body, timeout_s)

    def _send(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        where, ends_s, content = self.url + path, time.monotonic() + timeout_s, bytearray()
        try:
            with self._client.stream(method, where, json=body, timeout=timeout_s) as answer:
                # The client's own timeout is per read: a server that drips would hold a thread for ever.
                for piece in answer.iter_bytes():
                    content += piece
                    if time.monotonic() > ends_s:
                        raise httpx2.ReadTimeout(f"no whole answer within {timeout_s:g} s")
        except httpx2.HTTPError as error:
            said = str(error) or type(error).__name__
            raise Busy(self.url, f"is out of reach ({said})", "is the server running?", status=None) from None
        return _read(where, answer, bytes(content))


def open_endpoint(address: str, rest: str, batch: int = 16) -> EndpointModel:
    """Open `NAME@URL`. Raises `EndpointError` where the server is out of reach or refuses the key."""
    name, _, url = rest.partition("@")
    if not name or not url.startswith(("http://", "https://")):
        raise UsageError(address, "is not openai:NAME@URL", "e.g. openai:my-model@http://127.0.0.1:8000/v1")
    return EndpointModel(address, name, url, batch=batch)


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


def retry_after_s(header: str | None) -> float:
    """Seconds that a `Retry-After` header asks for, given in seconds or as a date; 0 where it is absent or broken."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(header)).timestamp() - time.time())
    except ValueError:
        return 0.0


def body_of(name: str, request: Request) -> dict[str, Any]:
    """The body of a chat completion."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": name,
        "messages": [m.model_dump() for m in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body


def _read(where: str, answer: httpx2.Response, content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except ValueError:
        data = None
    status = answer.status_code
    if status == 401:
        raise EndpointError(where, "refused the key (401)", "set SPIRITSAFE_API_KEY to a key of this server")
    if status < 400 and isinstance(data, dict):
        return data
    said = data.get("error", data) if isinstance(data, dict) else content.decode(errors="replace")[:200]
    said = said.get("message", said) if isinstance(said, dict) else said
    what = " ".join(f"answered {status}: {said}".split())
    if status in PASSING or (data is None and status < 400):
        raise Busy(where, what, status=status, after_s=retry_after_s(answer.headers.get("retry-after")))
    raise EndpointError(where, what)
