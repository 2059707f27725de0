"""How a model is asked: waves, threads, turns, errors, and the log before the answer."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spiritsafe.errors import EndpointError, ModelError, RunError
from spiritsafe.guard.batcher import Batcher
from spiritsafe.guard.log import Log
from spiritsafe.models import Model, open_model
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, user
from spiritsafe.record import Exchange, Sampling, read_jsonl
from tests.guard.conftest import FailingModel


@dataclass
class Waves:
    """A model that echoes, and notes what it was asked together; the text `bad` fails a wave."""

    address: str = "waves"
    digest: str = "0" * 64
    threads: int = 1
    pause_s: float = 0.0
    sizes: list[int] = field(default_factory=list)

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Echo."""
        self.sizes.append(len(requests))
        time.sleep(self.pause_s * max(request.sampling.max_tokens for request in requests))
        exchanges = open_model("fake:echo").generate(requests, on_text=on_text)
        if any(request.messages[0].content == "bad" for request in requests):
            raise ModelError("waves", "broken")
        return exchanges

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Nothing."""
        return [Scores((), ()) for _ in exchanges]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log that can be written."""
    return Log(tmp_path / "log.jsonl")


def batcher(model: Model, log: Log, *, max_batch: int = 64, window_s: float = 0.2) -> Batcher:
    """A running batcher."""
    return Batcher(model, log=log, window_s=window_s, max_batch=max_batch)


def request(text: str, account: str = "alice", max_tokens: int = 64) -> Request:
    """A request to echo."""
    return Request(user(text), Sampling(max_tokens=max_tokens), account=account)


def kept(log: Log) -> list[Exchange]:
    """What is in the log."""
    return read_jsonl(log.path, Exchange)


def test_requests_that_come_together_are_one_wave(log: Log) -> None:
    model = Waves()
    worker = batcher(model, log)
    futures = [worker.submit(request(str(k))) for k in range(10)]
    assert [future.result(5).exchange.answer for future in futures] == [str(k) for k in range(10)]
    assert model.sizes == [10]
    worker.close()


def test_a_full_wave_does_not_wait(log: Log) -> None:
    model = Waves()
    worker = batcher(model, log, max_batch=4, window_s=60)
    futures = [worker.submit(request(str(k))) for k in range(8)]
    assert [future.result(5).exchange.answer for future in futures] == [str(k) for k in range(8)]
    assert model.sizes == [4, 4]
    worker.close()


def test_each_waiter_hears_its_own_text_but_for_the_last_piece_which_leaves_after_the_log(log: Log) -> None:
    worker = batcher(Waves(), log)
    heard: list[list[str]] = [[], []]
    futures = [worker.submit(request(text), heard[k].append) for k, text in enumerate(("one two three", "four"))]
    assert [future.result(5).exchange.answer for future in futures] == ["one two three", "four"]
    assert heard == [["one ", "two "], []]
    assert [exchange.answer for exchange in kept(log)] == ["one two three", "four"]
    worker.close()


def test_an_error_fails_its_own_request_alone_and_its_neighbours_are_answered_and_logged(log: Log) -> None:
    worker = batcher(Waves(), log)
    futures = {text: worker.submit(request(text)) for text in ("a", "b", "bad", "c", "d")}
    with pytest.raises(ModelError, match="broken"):
        futures.pop("bad").result(5)
    assert {text: future.result(5).exchange.answer for text, future in futures.items()} == {t: t for t in "abcd"}
    logged = {exchange.messages[0].content: exchange.error_kind for exchange in kept(log)}
    assert logged == {"a": "", "b": "", "c": "", "d": "", "bad": "model"}
    worker.close()


@pytest.mark.parametrize(
    ("error", "kind"), [(ModelError("x", "broken"), "model"), (EndpointError("x", "is out of reach"), "passing")]
)
def test_what_was_streamed_before_an_error_is_logged_as_sent(log: Log, error: Exception, kind: str) -> None:
    class Breaking(FailingModel):
        def generate(
            self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
        ) -> list[Exchange]:
            for piece in ("one ", "two ", "three"):
                assert on_text is not None
                on_text(0, piece)
            raise self.error

    worker, heard = batcher(Breaking(error), log, window_s=0.01), list[str]()
    with pytest.raises(type(error)):
        worker.submit(request("a"), heard.append).result(5)
    [logged] = kept(log)
    assert heard == ["one ", "two "]
    assert (logged.account, logged.sent, logged.answer) == ("alice", "one two ", "")
    assert (logged.error_kind, logged.finish_reason) == (kind, "error")
    worker.close()


def test_a_wave_that_is_asked_again_sends_no_text_twice(log: Log) -> None:
    worker, heard = batcher(Waves(), log), list[str]()
    future = worker.submit(request("one two three"), heard.append)
    worker.submit(request("bad"))
    answered = future.result(5).exchange
    assert answered.sent is None
    assert answered.answer.startswith("".join(heard))
    assert heard == ["one ", "two "]
    worker.close()


def test_an_answer_that_no_reader_could_read_fails_alone(log: Log) -> None:
    class Half(Waves):
        def generate(
            self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
        ) -> list[Exchange]:
            found = super().generate(requests)
            return [e.model_copy(update={"answer": "\ud800"}) if e.answer == "half" else e for e in found]

    worker = batcher(Half(), log)
    half, whole = worker.submit(request("half")), worker.submit(request("whole"))
    assert whole.result(5).exchange.answer == "whole"
    assert half.result(5).exchange.error_kind == "model"
    assert [exchange.error_kind for exchange in kept(log)] == ["model", ""]
    worker.close()


def test_one_accounts_slow_answers_hold_up_no_other_account_of_a_model_asked_by_threads(log: Log) -> None:
    worker = batcher(open_model("fake:slow=0.3"), log)
    slow = [worker.submit(request(str(k), "eve")) for k in range(200)]
    worker.submit(request("quick", "bob")).result(20)
    assert sum(future.done() for future in slow) < 100  # its turn came with the first or second of four rounds
    worker.close(20)


def test_long_requests_hold_up_no_short_ones_of_a_model_that_two_threads_may_call(log: Log) -> None:
    go_on = threading.Event()

    class Held(Waves):
        def generate(
            self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
        ) -> list[Exchange]:
            if requests[0].account == "eve":
                go_on.wait(20)
            return super().generate(requests, on_text=on_text)

    worker = batcher(Held(threads=2), log, window_s=0.01)
    long = worker.submit(request("long", "eve", max_tokens=5000))
    assert worker.submit(request("short", "bob")).result(10).exchange.answer == "short"
    assert not long.done()
    go_on.set()
    assert long.result(10).exchange.answer == "long"
    worker.close()


def test_many_requests_of_one_account_are_split_and_others_take_turns(log: Log) -> None:
    model = Waves(pause_s=0.0001)
    worker = batcher(model, log)
    for k in range(12):
        worker.submit(request(str(k), "eve", max_tokens=1000))
    worker.submit(request("bob", "bob", max_tokens=1000))
    worker.close()
    assert model.sizes == [5, 4, 4]
    assert "bob" in [exchange.account for exchange in kept(log)][:5]


def test_close_answers_what_is_queued_and_takes_no_more(log: Log) -> None:
    worker = batcher(open_model("fake:slow=0.02"), log, max_batch=1, window_s=0)
    futures = [worker.submit(request(str(k))) for k in range(5)]
    worker.close()
    assert [future.result(0).exchange.answer for future in futures] == [str(k) for k in range(5)]
    with pytest.raises(RunError, match="shutting down"):
        worker.submit(request("late"))


def test_close_with_a_bound_ends_and_logs_what_was_still_open(log: Log) -> None:
    go_on = threading.Event()

    class Stuck(Waves):
        def generate(
            self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
        ) -> list[Exchange]:
            assert on_text is not None
            on_text(0, "one ")
            on_text(0, "two ")
            go_on.wait(10)
            return super().generate(requests, on_text=on_text)

    worker, heard = batcher(Stuck(), log, window_s=0.01), list[str]()
    future = worker.submit(request("one two three"), heard.append)
    worker.close(0.2)
    with pytest.raises(RunError, match="shutting down"):
        future.result(0)
    go_on.set()
    assert heard == ["one "]
    assert [(e.account, e.sent, e.error_kind) for e in kept(log)] == [("alice", "one ", "passing")]


def test_an_answer_cannot_be_cancelled_and_so_is_always_kept(log: Log) -> None:
    worker = batcher(Waves(), log)
    future = worker.submit(request("asked"))
    assert not future.cancel()
    assert future.result(5).exchange.answer == "asked"
    assert len(kept(log)) == 1
    worker.close()


def test_a_lone_request_waits_for_no_more_than_the_window(log: Log) -> None:
    worker = batcher(Waves(), log, window_s=0.02)
    started_s = time.monotonic()
    worker.submit(request("alone")).result(5)
    assert time.monotonic() - started_s < 1
    worker.close()
