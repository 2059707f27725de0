"""A log as evidence: what stands in it twice counts once. Lines that were removed leave no trace."""

from collections.abc import Callable, Sequence
from pathlib import Path

from spiritsafe.errors import DataError
from spiritsafe.record import Exchange


def each_once(log: Sequence[Exchange], path: Path, say: Callable[[str], None]) -> list[Exchange]:
    """The exchanges of a log, each once; `say` is told how many stood there again.

    One exchange is one identity at one time: a client may ask the same with the same seed again. Raises `DataError` if
    two lines of one exchange differ.
    """
    first: dict[tuple[str, float], Exchange] = {}
    for exchange in log:
        if first.setdefault((exchange.id, exchange.started_at_s), exchange) != exchange:
            what = f"holds two different lines of exchange {exchange.id}"
            raise DataError(str(path), what, "put the file back as it was written")
    if len(first) < len(log):
        say(f"{path}: {len(log) - len(first):,} of {len(log):,} lines stand there twice, and count once")
    return list(first.values())
