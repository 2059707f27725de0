"""What a log counts: every exchange once, however often its line stands there."""

from pathlib import Path

import pytest

from spiritsafe.errors import DataError
from spiritsafe.guard.watch.log import each_once
from spiritsafe.record import Exchange, Message, Sampling

LOG = Path("log.jsonl")


def exchange(number: int, *, started_at_s: float = 0.0, answer: str = "Hi.") -> Exchange:
    """One exchange, by its number."""
    return Exchange(
        id=str(number),
        model="fake:a",
        model_digest="0",
        messages=(Message(role="user", content="Hello?"),),
        sampling=Sampling(),
        answer=answer,
        started_at_s=started_at_s,
    )


def test_copied_lines_count_once_and_their_number_is_said() -> None:
    warnings: list[str] = []
    log = [exchange(0), exchange(1)]

    assert each_once([*log, *log, exchange(1)], LOG, warnings.append) == log
    assert "3 of 5 lines stand there twice" in "".join(warnings)


def test_the_same_question_asked_again_counts_again() -> None:
    warnings: list[str] = []
    log = [exchange(0, started_at_s=1.0), exchange(0, started_at_s=2.0)]

    assert each_once(log, LOG, warnings.append) == log
    assert warnings == []


def test_two_different_lines_of_one_exchange_are_refused() -> None:
    with pytest.raises(DataError, match="two different lines of exchange 0"):
        each_once([exchange(0), exchange(0, answer="No.")], LOG, print)
