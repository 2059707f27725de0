"""The two stages of a policy: rules flag a query, a reviewer model or the rules alone decide.

Rules look at the user's turns only, never at answers. The reviewer reads hostile text, so a query
can try to talk it round; a reviewer is one more model, with errors of its own.
"""

import re
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spiritsafe.guard.policy import Policy, Review, Rule
from spiritsafe.models.base import Model, Request, user
from spiritsafe.record import Exchange, Message, Sampling


@dataclass(frozen=True)
class Decision:
    """What the risk control made of one exchange. `words` is what the reviewer said, `elapsed_s` its time."""

    rules: tuple[str, ...] = ()
    stage: Literal["none", "patterns", "reviewer"] = "none"
    reading: Literal["", "unsafe", "safe", "unclear"] = ""
    words: str = ""
    stopped: bool = False
    elapsed_s: float = 0.0
    cost_usd: float = 0.0


def flagging_rules(policy: Policy, messages: Sequence[Message]) -> tuple[str, ...]:
    """Names of the rules that a dialogue's user turns match, in the policy's order."""
    text = normalise(" \n ".join(message.content for message in messages if message.role == "user"))
    return tuple(name for name, rule in policy.rules.items() if _compiled(rule).search(text))


def decide(
    policy: Policy, reviewer: Model | None, exchanges: Sequence[Exchange], rules: Sequence[tuple[str, ...]]
) -> list[Decision]:
    """Decide on each exchange, given the rules that flagged it; the reviewer is asked once, for all flagged."""
    if policy.decide == "patterns" or policy.review is None or reviewer is None:
        return [Decision(names, "patterns", stopped=True) if names else Decision() for names in rules]
    flagged = [index for index, names in enumerate(rules) if names]
    reviewed = _reviewed(policy.review, reviewer, [exchanges[i] for i in flagged], [rules[i] for i in flagged])
    decisions = dict(zip(flagged, reviewed, strict=True))
    return [decisions.get(index, Decision()) for index in range(len(exchanges))]


def normalise(text: str) -> str:
    """A text as rules see it: NFKC, no invisible characters, single blanks."""
    shown = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return " ".join(shown.split())


def read_words(review: Review, words: str) -> Literal["unsafe", "safe", "unclear"]:
    """Read a reviewer's reply by its first word."""
    found = re.search(r"[^\W\d_]+", words)
    first = found.group().casefold() if found else ""
    if first in {word.casefold() for word in review.unsafe}:
        return "unsafe"
    return "safe" if first in {word.casefold() for word in review.safe} else "unclear"


def _reviewed(
    review: Review, reviewer: Model, exchanges: Sequence[Exchange], rules: Sequence[tuple[str, ...]]
) -> list[Decision]:
    if not exchanges:
        return []
    started_s = time.perf_counter()
    replies = reviewer.generate([_question(review, exchange) for exchange in exchanges])
    elapsed_s = (time.perf_counter() - started_s) / len(exchanges)
    return [_decision(review, names, reply, elapsed_s) for names, reply in zip(rules, replies, strict=True)]


def _decision(review: Review, names: tuple[str, ...], reply: Exchange, elapsed_s: float) -> Decision:
    reading = read_words(review, reply.answer)
    stopped = reading == "unsafe" or (reading == "unclear" and review.on_unclear == "stop")
    return Decision(names, "reviewer", reading, reply.answer[:80], stopped, elapsed_s, reply.cost_usd)


def _question(review: Review, exchange: Exchange) -> Request:
    query = " ".join(message.content for message in exchange.messages if message.role == "user")
    parts = {"{query}": _cut(query, review.max_chars), "{answer}": _cut(exchange.answer, review.max_chars)}
    prompt = re.sub(r"\{(query|answer)\}", lambda found: parts[found.group()], review.prompt.strip())
    return Request(user(prompt), Sampling(temperature=0.0, max_tokens=review.max_tokens, seed=0))


def _cut(text: str, max_chars: int) -> str:
    """Beginning and end, so that padding on one side hides nothing on the other."""
    if len(text) <= max_chars:
        return text
    return f"{text[: max_chars // 2]} ... {text[-(max_chars // 2) :]}"


@lru_cache(maxsize=256)
def _compiled(rule: Rule) -> re.Pattern[str]:
    words = "|".join(_phrase(phrase) for phrase in rule.phrases)
    parts = [*([rf"\b(?:{words})(?!\w)"] if words else []), *(f"(?:{normalise(p)})" for p in rule.patterns)]
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def _phrase(phrase: str) -> str:
    return re.escape(normalise(phrase)).replace(r"\*", r"\w*")
