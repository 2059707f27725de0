"""What collecting has spent, against its budget in tokens, money and seconds.

A request is admitted only if all that is under way could still end at its bound within the budget: the
budget is kept, not overshot by what was under way. A request's bound is its `max_tokens` and a token a byte
of its prompt, with `TEMPLATE` tokens a message for the chat template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from spiritsafe.make.data.settings import Budget
from spiritsafe.models.base import Request
from spiritsafe.record import Exchange, Message, Sampling

TEMPLATE = 32


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
    """Spent so far and reserved for what is under way. The clock starts with it."""

    budget: Budget
    spent: Spent = Spent()
    reserved: Spent = Spent()
    started_s: float = field(default_factory=monotonic)

    def admit(self, request: Request) -> str:
        """Reserve a request's bound and return ""; or, where the budget does not allow it, which part and why."""
        bound = self.bound(request.messages, request.sampling)
        if refusal := self._refusal(bound):
            return refusal
        self.reserved = self.reserved.plus(bound)
        return ""

    def settle(self, request: Request | Exchange) -> None:
        """Free what was reserved for a request that has ended."""
        self.reserved = self.reserved.plus(self.bound(request.messages, request.sampling), -1)

    def count(self, exchange: Exchange) -> None:
        """Add an answer's tokens and price."""
        self.spent = self.spent.plus(self.price(exchange.usage.prompt_tokens, exchange.usage.completion_tokens))

    def price(self, tokens_in: int, tokens_out: int) -> Spent:
        """Tokens with their price in US dollars."""
        rate_in, rate_out = self.budget.usd_per_million_in, self.budget.usd_per_million_out
        return Spent(tokens_in, tokens_out, (tokens_in * rate_in + tokens_out * rate_out) / 1e6)

    def bound(self, messages: Sequence[Message], sampling: Sampling) -> Spent:
        """The most that an answer may take."""
        prompt = sum(len(m.content.encode()) + TEMPLATE for m in messages)
        return self.price(prompt, sampling.max_tokens)

    @property
    def ends_s(self) -> float | None:
        """The monotonic time at which the seconds are over."""
        return None if self.budget.seconds is None else self.started_s + self.budget.seconds

    def _refusal(self, bound: Spent) -> str:
        after, most = self.spent.plus(self.reserved).plus(bound), self.budget
        if most.tokens is not None and after.tokens > most.tokens:
            need = f"the next answer may take {bound.tokens:,}"
            return f"tokens: {self.spent.tokens:,} of {most.tokens:,} spent, {need}"
        if most.usd is not None and after.usd > most.usd:
            return f"usd: {self.spent.usd:.4f} of {most.usd:.4f} spent, the next answer may take {bound.usd:.4f}"
        if self.ends_s is not None and monotonic() >= self.ends_s:
            return f"seconds: {monotonic() - self.started_s:.1f} of {most.seconds:g} spent"
        return ""
