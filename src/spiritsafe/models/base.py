"""What every model can do: `Request` in, `Exchange` out; and `Scores` for given answers.

Import of this module loads neither torch nor numpy.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from spiritsafe.errors import ModelError
from spiritsafe.record import ErrorKind, Exchange, Message, Sampling, Usage, digest_of, seed_of


class RequestError(ModelError):
    """One request that a model cannot read: asked again it fails again, and its neighbours are answered."""


@dataclass(frozen=True)
class Request:
    """One answer wanted. `open_turn="user"` leaves the user's turn open for the model to write.

    `sampling.seed` is this sequence's own; equal requests with equal seeds give equal answers,
    whatever else is in the batch.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    open_turn: Literal["assistant", "user"] = "assistant"
    account: str = ""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of one answer in nats, per token.

    `logprobs` (T). `top_ids`, `top_logprobs` (T, K) hold the model's K likeliest tokens at each
    position, likeliest first; both are empty where `top_k=0`.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_ids: tuple[tuple[int, ...], ...] = ()
    top_logprobs: tuple[tuple[float, ...], ...] = ()


OnExchange = Callable[[Exchange], None]
OnText = Callable[[int, str], None]


@runtime_checkable
class Model(Protocol):
    """A model behind any address.

    It may say more of itself: `threads` that may call it at once (one, if it does not say); `alone`, if it gains
    nothing from many requests in one call; `gives_logprobs`; and `check(request)`, why it could not answer.
    """

    address: str
    digest: str

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order. `on_exchange` sees each as it ends, `on_text(i, piece)` text as it grows.

        A request that cannot be answered does not fail its neighbours: its exchange is `failed`. Raises only what
        concerns all of them.
        """
        ...

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Log-probabilities of the stored answers' tokens. Raises `ModelError` where the model cannot say."""
        ...


def ask(prompts: Sequence[tuple[Message, ...]], sampling: Sampling, *, n: int = 1, purpose: str = "") -> list[Request]:
    """`n` requests a prompt, each with a seed of its own derived from `sampling.seed`, the prompt and `purpose`."""
    base = sampling.seed or 0
    return [
        Request(p, sampling.model_copy(update={"seed": seed_of(base, purpose, [(m.role, m.content) for m in p], k)}))
        for p in prompts
        for k in range(n)
    ]


def exchange_id(model_digest: str, request: Request) -> str:
    """The identity of one answer wanted: equal model, account, prompt, settings and seed give an equal id."""
    parts = [model_digest, request.account, request.open_turn, [m.model_dump() for m in request.messages]]
    return digest_of([*parts, request.sampling.model_dump()])[:32]


def identity(address: str, model_digest: str, request: Request) -> dict[str, Any]:
    """The fields of an `Exchange` that say which model was asked what, by whom."""
    return {
        "id": exchange_id(model_digest, request),
        "account": request.account,
        "model": address,
        "model_digest": model_digest,
        "messages": request.messages,
        "open_turn": request.open_turn,
        "sampling": request.sampling,
    }


def failed(address: str, model_digest: str, request: Request, error: str, kind: ErrorKind) -> Exchange:
    """The exchange of a request that got no answer; `error` is one line, `kind` says who can mend it."""
    reason: Any = "content_filter" if kind == "filter" else "error"
    named = identity(address, model_digest, request)
    return Exchange(**named, answer="", finish_reason=reason, usage=Usage(known=False), error=error, error_kind=kind)


def told(
    answers: Iterable[Exchange], on_exchange: OnExchange | None = None, on_text: OnText | None = None
) -> list[Exchange]:
    """All answers; each is passed on as it comes, its text in one piece."""
    seen: list[Exchange] = []
    for exchange in answers:
        if on_text:
            on_text(len(seen), exchange.answer)
        if on_exchange:
            on_exchange(exchange)
        seen.append(exchange)
    return seen


def user(text: str) -> tuple[Message, ...]:
    """A prompt of one user turn."""
    return (Message(role="user", content=text),)
