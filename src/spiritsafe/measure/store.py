"""Exchanges kept by content: an answer is found again by model digest, prompt, settings and seed.

One JSONL file a model. Each answer is on disk before the next is counted, so a killed process loses at
most the answers that were under way.
"""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from spiritsafe.errors import RunError, writing
from spiritsafe.models.base import Model, OnExchange, OnText, Request, Scores, exchange_id, told
from spiritsafe.progress import Tick
from spiritsafe.record import Exchange, Record, append_jsonl, digest_of, read_jsonl, repair_jsonl

CHUNK = 64


@dataclass(frozen=True)
class Budget:
    """What a measurement may spend: completion and prompt tokens, US dollars, seconds; None is without bound."""

    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None


class BudgetSpent(RunError):
    """The budget is spent; what was answered is stored, and the same command with a larger one goes on."""


@dataclass
class Meter:
    """What was spent so far, against a budget; the clock starts with it."""

    budget: Budget
    tokens: int = 0
    usd: float = 0.0
    started_s: float = 0.0

    def count(self, exchange: Exchange) -> None:
        """Add one exchange."""
        self.tokens += exchange.usage.prompt_tokens + exchange.usage.completion_tokens
        self.usd += exchange.cost_usd

    def check(self) -> None:
        """Raise `BudgetSpent` where a bound is reached."""
        spent = {"tokens": self.tokens, "usd": self.usd, "seconds": monotonic() - self.started_s}
        for name, value in spent.items():
            most = getattr(self.budget, name)
            if most is not None and value >= most:
                raise BudgetSpent(
                    f"--max-{name}", f"{value:.6g} of {most:.6g} spent", "raise it; stored answers are kept"
                )


@contextmanager
def locked(folder: Path) -> Iterator[list[str]]:
    """Hold a folder against a second process; yields warnings of what a killed one left and was mended."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield [w for w in map(repair_jsonl, sorted(folder.rglob("*.jsonl"))) if w]
    except BlockingIOError:
        raise RunError(str(folder), "is in use by another process", "wait for it or stop it") from None
    finally:
        lock.close()


def answers(folder: Path, model: Model, requests: Sequence[Request], *, meter: Meter, tick: Tick) -> list[Exchange]:
    """The answers to `requests`, in order: stored ones again, the others generated and stored, equal ones once.

    Raises `BudgetSpent` between chunks of 64.
    """
    path, held = exchanges_of(folder, model)
    wanted = {_key(model, r): r for r in requests}
    missing = sorted((r for key, r in wanted.items() if key not in held), key=_length)
    for _ in range(len(requests) - len(missing)):
        tick()

    def keep(exchange: Exchange) -> None:
        append_jsonl(path, [exchange])
        held[_key(model, exchange)] = exchange
        meter.count(exchange)
        tick()

    for start in range(0, len(missing), CHUNK):
        meter.check()
        model.generate(missing[start : start + CHUNK], on_exchange=keep)
    return [held[_key(model, r)] for r in requests]


def exchanges_of(folder: Path, model: Model) -> tuple[Path, dict[str, Exchange]]:
    """A model's file and what it holds, by content address."""
    path = folder / "exchanges" / f"{model.digest[:16]}.jsonl"
    return path, {_key(model, e): e for e in read_jsonl(path, Exchange)}


def missing_of(folder: Path, model: Model, requests: Sequence[Request]) -> list[Request]:
    """The requests that the store does not answer, equal ones once."""
    _, held = exchanges_of(folder, model)
    return [r for key, r in {_key(model, r): r for r in requests}.items() if key not in held]


class Likelihood(Record):
    """The log-likelihood in nats of one answer to one prompt, by its content address."""

    version: Literal[1] = 1
    key: str
    logprob: float


def likelihoods(folder: Path, model: Model, choices: Sequence[Exchange], *, meter: Meter, tick: Tick) -> list[float]:
    """Log-likelihoods of given answers, in order: stored ones again, the others scored and stored.

    Raises `BudgetSpent` between chunks of 64, and `ModelError` where the model has no log-probabilities.
    """
    path = folder / "likelihoods" / f"{model.digest[:16]}.jsonl"
    held = {found.key: found.logprob for found in read_jsonl(path, Likelihood)}
    keys = [digest_of([_key(model, c), c.answer])[:32] for c in choices]
    wanted = dict(zip(keys, choices, strict=True))
    missing = [(key, choice) for key, choice in wanted.items() if key not in held]
    for _ in range(len(choices) - len(missing)):
        tick()
    for start in range(0, len(missing), CHUNK):
        meter.check()
        part = missing[start : start + CHUNK]
        scores = model.score([choice for _, choice in part])
        found = [Likelihood(key=key, logprob=sum(s.logprobs)) for (key, _), s in zip(part, scores, strict=True)]
        append_jsonl(path, found)
        held.update({f.key: f.logprob for f in found})
        for _ in part:
            tick()
    return [held[key] for key in keys]


class Stored:
    """A model that answers from the store where it can; what it must generate is stored at once.

    `given` holds every answer it gave, with the seconds that its generation once took.
    """

    def __init__(self, folder: Path, inner: Model, meter: Meter) -> None:
        self.inner, self.address, self.digest = inner, inner.address, inner.digest
        self._folder, self._meter = folder, meter
        self.given: list[Exchange] = []

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; see `spiritsafe.models.Model`."""
        found = answers(self._folder, self.inner, requests, meter=self._meter, tick=lambda: None)
        self.given += found
        return told(found, on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The inner model's log-probabilities in nats."""
        return self.inner.score(exchanges, top_k=top_k)


def _length(request: Request) -> int:
    """Prompts of like length go together: a batch is padded to its longest."""
    return sum(len(m.content) for m in request.messages)


def _key(model: Model, item: Request | Exchange) -> str:
    """The content address; an exchange's own id may be that of a model behind a guard."""
    return exchange_id(model.digest, Request(item.messages, item.sampling, item.open_turn, item.account))
