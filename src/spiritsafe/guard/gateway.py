"""What stands between the wire and the model: whose key it is, what is asked, how much, and the log.

Every exchange is in the log before its answer is complete at the client: a stream's last chunk is sent
after it. A client that leaves does not stop its exchange from being answered and logged.
"""

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from pydantic import ValidationError

from spiritsafe.errors import EndpointError, RunError
from spiritsafe.guard.batcher import Answered, Batcher
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.wire import ChatBody, Json, error_body, explain, messages_of, sampling_of
from spiritsafe.models.base import Model, Request
from spiritsafe.record import Exchange, append_jsonl, seed_of

LOGGER = logging.getLogger("spiritsafe.guard")
OnChoice = Callable[[int, str], None]


class ApiError(Exception):
    """An answer other than 200, in OpenAI's words."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", *, param: str = "", code: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = error_body(message, kind, param=param or None, code=code or None)
        self.headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(status, {})


class Gateway:
    """One model served under one name, its keys, its log, and how many answers each account waits for.

    `logprobs` is how many candidates a token a client may have; 0: no log-probabilities at all.
    """

    def __init__(
        self, model: Model, keys: Keys, batcher: Batcher, *, name: str, max_tokens: int, max_pending: int, logprobs: int
    ) -> None:
        self.model, self.name, self.logprobs = model, name, logprobs
        self._keys, self._batcher, self._max_tokens, self._max_pending = keys, batcher, max_tokens, max_pending
        self._pending: Counter[str] = Counter()
        self._counting = threading.Lock()

    def account_of(self, authorization: str) -> str:
        """The account behind an Authorization header. Raises `ApiError` 401."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise ApiError(401, "No API key provided; send 'Authorization: Bearer KEY'.", code="invalid_api_key")
        account = self._keys.lookup(key.strip())
        if account is None:
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        return account

    def body_of(self, data: bytes) -> ChatBody:
        """A validated request body. Raises `ApiError` 400, or 404 for another model's name."""
        try:
            body = ChatBody.model_validate_json(data)
        except ValidationError as error:
            message, param = explain(error.errors(include_url=False)[0])
            raise ApiError(400, message, param=param) from None
        if body.model != self.name:
            what = f"The model '{body.model}' does not exist; this gateway serves '{self.name}'."
            raise ApiError(404, what, param="model", code="model_not_found")
        self._allow(body)
        return body

    def requests_of(self, body: ChatBody, account: str) -> list[Request]:
        """One request for each choice, each with a seed of its own, so that the log can be drawn again.

        A single choice has the client's seed, of several choice k has `seed_of(seed, k)`; without one
        the gateway draws it.
        """
        num = body.n or 1
        seed = secrets.randbits(63) if body.seed is None else body.seed
        seeds = [seed] if num == 1 else [seed_of(seed, k) for k in range(num)]
        prompt = messages_of(body)
        samplings = [sampling_of(body, max_tokens=self._max_tokens, seed=each) for each in seeds]
        return [Request(prompt, sampling, account=account) for sampling in samplings]

    def submit(
        self, requests: Sequence[Request], on_choice: OnChoice | None = None, *, top: int = 0
    ) -> list[Future[Answered]]:
        """Queue an account's requests, with `top` candidates a token.

        Raises `ApiError` 429 where the account waits for too many, 503 at shutdown.
        """
        self._admit(requests[0].account, len(requests))
        try:
            return [self._submit(index, request, on_choice, top) for index, request in enumerate(requests)]
        except RunError as error:
            raise failure(error) from None

    def close(self) -> None:
        """Answer what is queued, then stop."""
        self._batcher.close()

    def _allow(self, body: ChatBody) -> None:
        """Raises `ApiError` 400 where more log-probabilities are wanted than this gateway gives."""
        if body.top_logprobs and not body.logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        if body.logprobs and not self.logprobs:
            raise ApiError(400, "This gateway gives no log-probabilities.", param="logprobs", code="no_logprobs")
        if (body.top_logprobs or 0) > self.logprobs:
            raise ApiError(400, f"top_logprobs: at most {self.logprobs} here", param="top_logprobs")

    def _submit(self, index: int, request: Request, on_choice: OnChoice | None, top: int) -> Future[Answered]:
        on_piece = (lambda piece: on_choice(index, piece)) if on_choice else None
        future = self._batcher.submit(request, on_piece, top=top)
        future.add_done_callback(lambda _: self._release(request.account))
        return future

    def _admit(self, account: str, num: int) -> None:
        with self._counting:
            if self._pending[account] + num > self._max_pending:
                what = f"Too many answers pending for this account (limit {self._max_pending}); try again in a second."
                raise ApiError(429, what, "rate_limit_error", code="rate_limit_exceeded")
            self._pending[account] += num

    def _release(self, account: str) -> None:
        with self._counting:
            self._pending[account] -= 1


def failure(error: BaseException) -> ApiError:
    """What a client is told when the model or the log failed; the cause goes to the operator only."""
    if isinstance(error, ApiError):
        return error
    LOGGER.error("%s: %s", type(error).__name__, error)
    if isinstance(error, EndpointError | RunError):
        return ApiError(503, "The gateway cannot answer at the moment; try again later.", "server_error")
    return ApiError(500, "The model behind the gateway failed.", "server_error")


def log_keeper(log: Path) -> Callable[[Sequence[Exchange]], None]:
    """Append exchanges to a JSONL file."""
    writing = threading.Lock()

    def keep(exchanges: Sequence[Exchange]) -> None:
        with writing:
            append_jsonl(log, exchanges)

    return keep
