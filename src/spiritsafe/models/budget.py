"""What asking has spent, against a budget in tokens, money and seconds.

A request is admitted only if all that is under way could still end at its bound within the budget. Money is
never overshot; tokens neither, unless `beyond` lets the last answer go over. A request's bound is its
`max_tokens` and a token a byte of its prompt, with `TEMPLATE` tokens a message for the chat template. An answer
whose server reported no counts is counted in the same way: a token a byte of prompt, answer and reasoning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

from pydantic import Field

from spiritsafe.errors import UsageError
from spiritsafe.models.address import parse_address
from spiritsafe.models.base import Request
from spiritsafe.recipe import Section
from spiritsafe.record import Exchange, Message, Sampling

TEMPLATE = 32
# Plug-ins' schemes are not among them: what theirs cost is not known.
OWN = ("hf", "dir", "gguf", "pypi", "fake", "replay")


class Budget(Section):
    """What asking may spend; None is without bound.

    The prices are of a million tokens read and written, of what is served; models of this machine cost nothing.
    """

    tokens: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, ge=0)
    usd_per_million_in: float | None = Field(default=None, ge=0)
    usd_per_million_out: float | None = Field(default=None, ge=0)

    @property
    def priced(self) -> bool:
        """Whether a price is known; one of 0 is."""
        return self.usd_per_million_in is not None or self.usd_per_million_out is not None


@dataclass(frozen=True)
class Spent:
    """Tokens read and written, and their price."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_in + self.tokens_out

    def plus(self, other: "Spent", sign: int = 1) -> "Spent":
        """The sum, or with `sign=-1` the difference."""
        return Spent(
            self.tokens_in + sign * other.tokens_in,
            self.tokens_out + sign * other.tokens_out,
            self.usd + sign * other.usd,
        )


@dataclass
class Meter:
    """Spent so far and reserved for what is under way, from any thread. The clock starts with it.

    `uncounted` answers came without counts and were counted by their bytes.
    """

    budget: Budget
    spent: Spent = Spent()
    reserved: Spent = Spent()
    started_s: float = field(default_factory=monotonic)
    beyond: bool = False
    uncounted: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    def admit(self, request: Request, *, free: bool = False) -> str:
        """Reserve a request's bound and return ""; or, where the budget does not allow it, which part and why."""
        bound = self.bound(request.messages, request.sampling, free=free)
        with self._lock:
            if refusal := self._refusal(bound):
                return refusal
            self.reserved = self.reserved.plus(bound)
        return ""

    def settle(self, request: Request | Exchange, *, free: bool = False) -> None:
        """Free what was reserved for a request that has ended."""
        with self._lock:
            self.reserved = self.reserved.plus(self.bound(request.messages, request.sampling, free=free), -1)

    def count(self, exchange: Exchange, *, free: bool = False) -> float:
        """Add an answer's tokens and price; the price in US dollars."""
        usage = exchange.usage
        tokens_in, tokens_out = usage.prompt_tokens, usage.completion_tokens
        uncounted = not usage.known and not exchange.error_kind
        if uncounted:
            tokens_in = _prompt_bytes(exchange.messages)
            tokens_out = len((exchange.answer + exchange.reasoning).encode(errors="replace"))
        price = self.price(tokens_in, tokens_out, free=free)
        with self._lock:
            self.uncounted += uncounted
            self.spent = self.spent.plus(price)
        return price.usd

    def price(self, tokens_in: int, tokens_out: int, *, free: bool = False) -> Spent:
        """Tokens with their price in US dollars."""
        rate_in = self.budget.usd_per_million_in or 0.0
        rate_out = self.budget.usd_per_million_out or 0.0
        usd = 0.0 if free else (tokens_in * rate_in + tokens_out * rate_out) / 1e6
        return Spent(tokens_in, tokens_out, usd)

    def bound(self, messages: Sequence[Message], sampling: Sampling, *, free: bool = False) -> Spent:
        """The most that an answer may take."""
        return self.price(_prompt_bytes(messages), sampling.max_tokens, free=free)

    @property
    def ends_s(self) -> float | None:
        """The monotonic time at which the seconds are over."""
        return None if self.budget.seconds is None else self.started_s + self.budget.seconds

    def is_late(self) -> bool:
        """Whether the seconds are over."""
        return self.ends_s is not None and monotonic() >= self.ends_s

    def refusal_of_time(self) -> str:
        """What is told when the seconds are over."""
        return f"seconds: {monotonic() - self.started_s:.1f} of {self.budget.seconds:g} spent"

    def _refusal(self, bound: Spent) -> str:
        before, most = self.spent.plus(self.reserved), self.budget
        after = before.plus(bound)
        if most.tokens is not None and (before.tokens >= most.tokens if self.beyond else after.tokens > most.tokens):
            need = "" if self.beyond else f", the next answer may take {bound.tokens:,}"
            return f"tokens: {self.spent.tokens:,} of {most.tokens:,} spent{need}"
        if most.usd is not None and after.usd > most.usd:
            return f"usd: {self.spent.usd:.6g} of {most.usd:.6g} spent, the next answer may take {bound.usd:.6g}"
        return self.refusal_of_time() if self.is_late() else ""


def is_free(address: str) -> bool:
    """Whether a model costs nothing by the token: one of this machine, with nothing served within."""
    scheme = parse_address(address).scheme
    return scheme in OWN or (scheme == "guarded" and "openai:" not in address)


def _prompt_bytes(messages: Sequence[Message]) -> int:
    return sum(len(m.content.encode(errors="replace")) + TEMPLATE for m in messages)


def check_priced(address: str, budget: Budget) -> None:
    """Raise `UsageError` where dollars are bounded and what this model costs is not known."""
    if budget.usd is not None and not budget.priced and not is_free(address):
        hint = "say it: --usd-per-mtok IN,OUT (dollars a million tokens; 0,0 for a server of your own)"
        raise UsageError("--max-usd", f"the price of {address} is not known", hint)
