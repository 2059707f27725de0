"""`openai:NAME@URL`: any OpenAI-compatible server.

The key is read from `SPIRITSAFE_API_KEY`, else `OPENAI_API_KEY`. 429 and 5xx answers are tried again with
growing pauses; other refusals name what the server said. Answers carry text only: no token ids.
"""

import os
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
from pydantic import ValidationError

from spiritsafe.errors import EndpointError, ModelError, UsageError
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, exchange_id, told
from spiritsafe.record import Exchange, Usage, digest_of

TRIES = 5


class EndpointModel:
    """A model behind HTTP; `batch` requests are under way at once."""

    def __init__(self, address: str, name: str, url: str, *, batch: int = 16) -> None:
        self.address, self.name, self.url, self.batch = address, name, url.rstrip("/"), batch
        self.digest = digest_of(["endpoint", self.url, name])
        key = os.environ.get("SPIRITSAFE_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
        self._client = httpx2.Client(headers={"authorization": f"Bearer {key}"}, timeout=300, trust_env=False)
        weakref.finalize(self, self._client.close)
        listed = self._send("GET", "/models", None)
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
            return told(pool.map(self._ask, requests), on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Not possible: chat completions do not return log-probabilities of given answers."""
        raise ModelError(self.address, "cannot score given answers", "use a local model")

    def _ask(self, request: Request) -> Exchange:
        if request.open_turn == "user":
            raise ModelError(self.address, "cannot leave the user's turn open", "use a local model")
        sampling, started = request.sampling, time.time()
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [m.model_dump() for m in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        data = self._send("POST", "/chat/completions", body)
        try:
            choice, usage = data["choices"][0], data.get("usage") or {}
            reason = choice["finish_reason"]
            return Exchange(
                id=exchange_id(self.digest, request),
                account=request.account,
                model=self.address,
                model_digest=self.digest,
                messages=request.messages,
                sampling=sampling,
                answer=choice["message"]["content"] or "",
                finish_reason=reason if reason in ("stop", "length", "content_filter") else "stop",
                usage=Usage(
                    prompt_tokens=usage.get("prompt_tokens", 0), completion_tokens=usage.get("completion_tokens", 0)
                ),
                started_at_s=started,
                elapsed_s=time.time() - started,
            )
        except (KeyError, IndexError, TypeError, AttributeError, ValidationError):
            what = "answered something else than a chat completion"
            raise EndpointError(self.address, what, "is it OpenAI-compatible?") from None

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        for attempt in range(TRIES):
            try:
                answer = self._client.request(method, self.url + path, json=body)
            except httpx2.HTTPError as error:
                raise EndpointError(self.url, f"is out of reach ({error})", "is the server running?") from None
            if answer.status_code not in (429, 500, 502, 503, 504) or attempt == TRIES - 1:
                break
            time.sleep(_pause(answer.headers.get("retry-after"), attempt))
        return _body(self.url + path, answer)


def open_endpoint(address: str, rest: str, batch: int = 16) -> EndpointModel:
    """Open `NAME@URL`. Raises `EndpointError` where the server is out of reach or refuses the key."""
    name, _, url = rest.partition("@")
    if not name or not url.startswith(("http://", "https://")):
        raise UsageError(address, "is not openai:NAME@URL", "e.g. openai:my-model@http://127.0.0.1:8000/v1")
    return EndpointModel(address, name, url, batch=batch)


def _pause(retry_after: str | None, attempt: int) -> float:
    try:
        return min(30.0, float(retry_after or ""))
    except ValueError:
        return min(30.0, 0.5 * 2.0**attempt)


def _body(where: str, answer: httpx2.Response) -> dict[str, Any]:
    try:
        data = answer.json()
    except ValueError:
        data = None
    if answer.status_code == 401:
        raise EndpointError(where, "refused the key (401)", "set SPIRITSAFE_API_KEY to a key of this server")
    if answer.status_code >= 400 or not isinstance(data, dict):
        said = data.get("error", data) if isinstance(data, dict) else answer.text[:200]
        said = said.get("message", said) if isinstance(said, dict) else said
        raise EndpointError(where, f"answered {answer.status_code}: {said}")
    return data
