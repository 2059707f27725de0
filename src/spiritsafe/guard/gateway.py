"""What stands between the wire and the model: whose key it is, what is asked, how much, and the log.

Every exchange is in the log before its answer is complete at the client: a stream's last piece is sent
after it. A client that leaves does not stop its exchange from being answered and logged. A request that the
model cannot answer is refused alone, and logged with the reason.
"""

import logging
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pydantic import ValidationError

from spiritsafe.errors import EndpointError, RunError, printable
from spiritsafe.guard.batcher import Batcher, one_line
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.log import Log, Unwritable
from spiritsafe.guard.waiting import Answered
from spiritsafe.guard.wire import ChatBody, Json, error_body, explain, messages_of, sampling_of
from spiritsafe.models.base import Model, Request, failed
from spiritsafe.models.refused import TOO_LONG
from spiritsafe.record import Exchange, seed_of

LOGGER = logging.getLogger("spiritsafe.guard")
OnChoice = Callable[[int, str], None]
HEADERS = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}, 503: {"retry-after": "5"}}
CONTEXT = re.compile(rf"reads at most \d|{TOO_LONG.pattern}", re.IGNORECASE)  # local models, then servers
# Addresses and whatever looks like a key: an upstream's words may hold the operator's.
SECRETS = re.compile(r"\w+://\S+|(?i:bearer)\s+\S+|(?=\S*\d)[\w.+/=-]{16,}")


class ApiError(Exception):
    """An answer other than 200, in OpenAI's words."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", *, param: str = "", code: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = error_body(message, kind, param=param or None, code=code or None)
        self.headers = HEADERS.get(status, {})


class Gateway:
    """One model served under one name, its keys, its log, and how many answers each account waits for.

    `logprobs` is how many candidates a token a client may have; 0: no log-probabilities at all.
    """

    def __init__(
        self,
        model: Model,
        keys: Keys,
        batcher: Batcher,
        log: Log,
        *,
        name: str,
        max_tokens: int,
        max_pending: int,
        logprobs: int,
    ) -> None:
        self.model, self.name, self.logprobs, self.log = model, name, logprobs, log
        self.check: Callable[[Request], str] | None = getattr(model, "check", None)
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
            body = ChatBody.model_validate_json(data.removeprefix(b"\xef\xbb\xbf"))  # a byte order mark says nothing
        except ValidationError as error:
            message, param = explain(error.errors(include_url=False, include_input=False, include_context=False)[0])
            raise ApiError(400, message, param=param) from None
        if body.model != self.name:
            raise self.no_model(body.model)
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

        Raises `ApiError` 400 for what the model cannot answer, 429 where the account waits for too many, 503 at
        shutdown and while the log cannot be written.
        """
        self._admit(requests[0].account, len(requests))
        submitted: list[Future[Answered]] = []
        try:
            self.log.check()
            self._refuse(requests[0])
            for index, request in enumerate(requests):
                submitted.append(self._submit(index, request, on_choice, top))
            return submitted
        except Exception as error:
            for _ in requests[len(submitted) :]:
                self._release(requests[0].account)
            raise failure(error) from None

    def close(self, bound_s: float | None = None) -> None:
        """Answer what is queued, for so many seconds at most, then stop."""
        self._batcher.close(bound_s)
        self.log.close()

    def no_model(self, name: str) -> ApiError:
        """What is said of a model that is not the served one."""
        what = f"The model '{printable(name[:100])}' does not exist; this gateway serves '{self.name}'."
        return ApiError(404, what, param="model", code="model_not_found")

    def _refuse(self, request: Request) -> None:
        """Raises `ApiError` 400 for what the model says beforehand that it cannot answer, and logs it."""
        reason = self.check(request) if self.check else None
        if reason:
            exchange = failed(self.model.address, self.model.digest, request, one_line(reason), "request")
            self.log.keep([exchange])
            raise refusal(exchange)

    def _allow(self, body: ChatBody) -> None:
        """Raises `ApiError` 400 where more log-probabilities are wanted than this gateway gives."""
        if body.top_logprobs and not body.logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        if body.logprobs and not self.logprobs:
            raise ApiError(400, "This gateway gives no log-probabilities.", param="logprobs", code="no_logprobs")
        if (body.top_logprobs or 0) > self.logprobs:
            raise ApiError(400, f"top_logprobs: at most {self.logprobs} here", param="top_logprobs")
        if body.logprobs and not getattr(self.model, "gives_logprobs", True):
            raise ApiError(400, "The model behind this gateway has none.", param="logprobs", code="no_logprobs")

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
    LOGGER.error("%s", printable(f"{type(error).__name__}: {error}"))
    if isinstance(error, Unwritable):
        what = f"The exchange log cannot be written ({error.what}); nothing is served until it can."
        return ApiError(503, what, "server_error", code="log_unwritable")
    if isinstance(error, EndpointError | RunError):
        return ApiError(503, "The gateway cannot answer at the moment; try again later.", "server_error")
    return ApiError(500, "The model behind the gateway failed.", "server_error")


def refusal(exchange: Exchange) -> ApiError:
    """What a client is told of a failed exchange, by who can mend it."""
    if exchange.error_kind == "request":
        if CONTEXT.search(exchange.error):
            what = f"The prompt and the answer are longer than the model's context. ({_told(exchange.error)})"
            return ApiError(400, what, param="messages", code="context_length_exceeded")
        return ApiError(400, f"The model cannot answer this request: {_told(exchange.error)}", param="messages")
    if exchange.error_kind == "filter":
        what = "The provider's content filter refused the prompt."
        return ApiError(400, what, param="messages", code="content_filter")
    LOGGER.error("%s: %s", exchange.error_kind, printable(exchange.error))
    if exchange.error_kind == "passing":
        return ApiError(503, "The gateway cannot answer at the moment; try again later.", "server_error")
    return ApiError(500, "The model behind the gateway failed.", "server_error")


def _told(reason: str) -> str:
    return printable(SECRETS.sub("...", reason))[:300]
