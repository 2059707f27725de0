"""Waves of requests."""

import time
from collections.abc import Sequence

import pytest

from spiritsafe.errors import ModelError, RunError
from spiritsafe.guard.batcher import Batcher
from spiritsafe.models import Model, open_model
from spiritsafe.models.base import Request, user
from spiritsafe.record import Exchange, Sampling
from tests.guard.conftest import FailingModel


class Waves(list[int]):
    """Sizes of the waves that were kept."""

    def keep(self, exchanges: Sequence[Exchange]) -> None:
        """Note one."""
        self.append(len(exchanges))


def batcher(model: Model | str = "fake:echo", *, waves: Waves, max_batch: int = 64, window_s: float = 0.2) -> Batcher:
    """A running batcher."""
    opened = open_model(model) if isinstance(model, str) else model
    return Batcher(opened, keep=waves.keep, window_s=window_s, max_batch=max_batch)


def request(text: str) -> Request:
    """A request to echo."""
    return Request(user(text), Sampling())


def test_requests_that_come_together_are_one_wave() -> None:
    waves = Waves()
    worker = batcher(waves=waves)
    futures = [worker.submit(request(str(k))) for k in range(10)]
    assert [future.result(5).exchange.answer for future in futures] == [str(k) for k in range(10)]
    assert waves == [10]
    worker.close()


def test_a_full_wave_does_not_wait() -> None:
    waves = Waves()
    worker = batcher(waves=waves, max_batch=4, window_s=60)
    futures = [worker.submit(request(str(k))) for k in range(8)]
    assert [future.result(5).exchange.answer for future in futures] == [str(k) for k in range(8)]
    assert waves == [4, 4]
    worker.close()


def test_each_waiter_hears_its_own_text() -> None:
    worker = batcher(waves=Waves())
    heard: list[list[str]] = [[], []]
    futures = [worker.submit(request(text), heard[k].append) for k, text in enumerate(("one two", "three"))]
    assert [future.result(5).exchange.answer for future in futures] == ["one two", "three"]
    assert heard == [["one ", "two"], ["three"]]
    worker.close()


def test_an_error_reaches_every_waiter_and_the_next_wave_is_served() -> None:
    worker = batcher(FailingModel(ModelError("x", "broken")), waves=Waves(), window_s=0.02)
    for _ in range(2):
        for future in [worker.submit(request("a")) for _ in range(3)]:
            with pytest.raises(ModelError, match="broken"):
                future.result(5)
    worker.close()


def test_close_answers_what_is_queued_and_takes_no_more() -> None:
    worker = batcher("fake:slow=0.02", waves=Waves(), max_batch=1, window_s=0)
    futures = [worker.submit(request(str(k))) for k in range(5)]
    worker.close()
    assert all(future.done() for future in futures)
    assert [future.result().exchange.answer for future in futures] == [str(k) for k in range(5)]
    with pytest.raises(RunError, match="shutting down"):
        worker.submit(request("late"))


def test_an_answer_cannot_be_cancelled_and_so_is_always_kept() -> None:
    waves = Waves()
    worker = batcher(waves=waves)
    future = worker.submit(request("asked"))
    assert not future.cancel()
    assert future.result(5).exchange.answer == "asked"
    assert waves == [1]
    worker.close()


def test_a_lone_request_waits_for_no_more_than_the_window() -> None:
    worker = batcher(waves=Waves(), window_s=0.02)
    started_s = time.monotonic()
    worker.submit(request("alone")).result(5)
    assert time.monotonic() - started_s < 1
    worker.close()
