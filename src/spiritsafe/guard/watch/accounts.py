"""The accounts of a log, so that someone can say which of them are ordinary."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from spiritsafe.errors import printable
from spiritsafe.guard.watch.features import answer_tokens
from spiritsafe.record import Exchange


@dataclass(frozen=True)
class Use:
    """What one account drew off; times in seconds since the epoch, None if no exchange has one."""

    account: str
    requests: int
    answer_tokens: int
    first_s: float | None
    last_s: float | None


def uses_of(exchanges: Sequence[Exchange]) -> list[Use]:
    """What each account drew off, in the order in which they came."""
    own: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        own.setdefault(exchange.account, []).append(exchange)
    uses = []
    for account, asked in own.items():
        times_s = [exchange.started_at_s for exchange in asked if exchange.started_at_s]
        first_s, last_s = (min(times_s), max(times_s)) if times_s else (None, None)
        uses.append(Use(account, len(asked), int(answer_tokens(asked)), first_s, last_s))
    return uses


def listing(uses: Sequence[Use]) -> str:
    """A line an account, under a header."""
    rows = [("account", "requests", "answer tokens", "first", "last")]
    for use in uses:
        times = (_time(use.first_s), _time(use.last_s))
        rows.append((printable(use.account), f"{use.requests:,}", f"{use.answer_tokens:,}", *times))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for account, requests, tokens, first, last in rows:
        numbers = f"{requests:>{widths[1]}}  {tokens:>{widths[2]}}"
        lines.append(f"{account:<{widths[0]}}  {numbers}  {first:<{widths[3]}}  {last}".rstrip())
    return "\n".join(lines)


def fewest_ordinary(alpha: float) -> int:
    """How many ordinary accounts an alarm at p <= `alpha` needs: the least p-value is 1 / (they + 1)."""
    return ceil(1 / alpha - 1e-9) - 1  # 1 / 0.05 may come out a hair above 20


def _time(time_s: float | None) -> str:
    return "unknown" if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
