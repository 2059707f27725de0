"""The last stage: a reviewer model is asked about what the others flagged, and its first word is read.

The reviewer reads hostile text, so a query can try to talk it round; a reviewer is one more model, with errors
of its own.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spiritsafe.guard.policy import Review
from spiritsafe.models.base import Model, Request, user
from spiritsafe.record import Exchange, Sampling

Reading = Literal["unsafe", "safe", "unclear"]


@dataclass(frozen=True)
class Reviewed:
    """What a reviewer said of one dialogue: the beginning of its words, how they are read, seconds and dollars."""

    reading: Reading
    words: str
    stopped: bool
    elapsed_s: float
    cost_usd: float


def ask(review: Review, reviewer: Model, exchanges: Sequence[Exchange]) -> list[Reviewed]:
    """Ask the reviewer about each dialogue, all at once."""
    if not exchanges:
        return []
    started_s = time.perf_counter()
    replies = reviewer.generate([_question(review, exchange) for exchange in exchanges])
    elapsed_s = (time.perf_counter() - started_s) / len(exchanges)
    return [_reviewed(review, reply, elapsed_s) for reply in replies]


def read_words(review: Review, words: str) -> Reading:
    """Read a reviewer's reply by its first word."""
    found = re.search(r"[^\W\d_]+", words)
    first = found.group().casefold() if found else ""
    if first in {word.casefold() for word in review.unsafe}:
        return "unsafe"
    return "safe" if first in {word.casefold() for word in review.safe} else "unclear"


def _reviewed(review: Review, reply: Exchange, elapsed_s: float) -> Reviewed:
    reading = read_words(review, reply.answer)
    stopped = reading == "unsafe" or (reading == "unclear" and review.on_unclear == "stop")
    return Reviewed(reading, reply.answer[:80], stopped, elapsed_s, reply.cost_usd)


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
