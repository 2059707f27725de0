"""Answers are collected from servers that fail in every way, within a budget, and across kills."""

import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import EndpointError
from spiritsafe.make.data.collect import Collected, Failure, collect, stored
from spiritsafe.make.data.settings import Budget, CollectPart
from spiritsafe.models import Request, ask, endpoint, open_model, user
from spiritsafe.models.base import exchange_id, failed
from spiritsafe.record import Exchange, Sampling, read_jsonl
from tests.make.data.rough import Rough, rough

FAILURES = ("busy", "error", "broken", "cut", "reset", "silent")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE_S", 0.01)


def requests(num: int, *, max_tokens: int = 8) -> list[Request]:
    """`num` different requests with seeds 0, 1, 2, ..."""
    return [Request(user(f"question {i}"), Sampling(seed=i, max_tokens=max_tokens)) for i in range(num)]


def seeds(path: Path) -> list[int]:
    """The stored answers' seeds, sorted."""
    return sorted(e.sampling.seed or 0 for e in read_jsonl(path, Exchange))


def run(server: Rough, path: Path, num: int, **settings: object) -> Collected:
    """Collect `num` answers."""
    part = CollectPart.model_validate({"concurrency": 8, "timeout_s": 0.5, **settings})
    return collect(open_model(server.address), requests(num), path, part)


def test_every_passing_failure_is_overcome_and_each_request_answered_once(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    with rough(lambda seed, attempt: FAILURES[seed % 6] if attempt <= 1 + seed % 2 else "") as server:
        found = run(server, path, 24)
        asks = {seed: len(times) for seed, times in server.asks.items()}
    assert (found.answered, found.failed, found.stopped) == (24, 0, "")
    assert seeds(path) == list(range(24))
    assert asks == {seed: 2 + seed % 2 for seed in range(24)}
    assert all(e.answer == f"seed {e.sampling.seed}" for e in read_jsonl(path, Exchange))


def test_a_server_is_not_asked_again_before_the_time_it_names(tmp_path: Path) -> None:
    with rough(lambda _, attempt: "busy" if attempt <= 2 else "") as server:
        run(server, tmp_path / "all.jsonl", 4)
        pauses = [b - a for times in server.asks.values() for a, b in itertools.pairwise(times)]
    assert len(pauses) == 8
    assert min(pauses) >= 0.4


def test_no_more_requests_are_under_way_than_allowed(tmp_path: Path) -> None:
    with rough(pause_s=0.02) as server:
        run(server, tmp_path / "all.jsonl", 30, concurrency=5)
    assert 2 <= server.most_at_once <= 5


def test_a_refusal_is_data_and_is_not_asked_again_while_a_passing_failure_is(tmp_path: Path) -> None:
    path, failing = tmp_path / "all.jsonl", {3: "refused", 7: "error"}
    with rough(lambda seed, _: failing.get(seed, "")) as server:
        first = run(server, path, 40, tries=2)
        assert (first.answered, first.failed) == (38, 2)
        assert {f.error.partition(": ")[2]: f.passing for f in read_jsonl(path.with_suffix(".failures"), Failure)} == {
            "answered 400: too long": False,
            "answered 500: oops": True,
        }
        failing.pop(7)
        second = run(server, path, 40, tries=2)
    assert (second.asked, second.answered, second.failed) == (1, 39, 1)
    assert [len(server.asks[seed]) for seed in (3, 7)] == [1, 3]


def test_too_large_a_share_of_failures_ends_it_early_and_names_the_commonest(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    with rough(lambda seed, _: "refused" if seed % 2 else "") as server:
        with pytest.raises(EndpointError, match=r"20 of \d+ requests .* answered 400: too long; .* raise max_failed"):
            run(server, path, 400)
        assert server.num_asks < 100
    assert len(seeds(path)) > 10


def test_a_budget_of_tokens_is_kept_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    with rough(pause_s=0.01) as server:
        found = run(server, path, 100, budget={"tokens": 500})
        assert found.answered * 10 == found.tokens_in + found.tokens_out <= 500
        assert found.answered > 40
        assert found.stopped.startswith(f"tokens: {found.answered * 10} of 500 spent")
        again = run(server, path, 100, budget={"tokens": 500})
        assert (again.asked, again.answered) == (0, found.answered)
        assert run(server, path, 100).answered == server.num_asks == 100


def test_a_budget_of_money_counts_both_directions(tmp_path: Path) -> None:
    budget = Budget(usd=0.01, usd_per_million_in=100, usd_per_million_out=50)
    with rough() as server:
        found = run(server, tmp_path / "all.jsonl", 100, budget=budget)
    assert found.usd == pytest.approx(found.answered * (6 * 100 + 4 * 50) / 1e6)
    assert found.usd == pytest.approx(sum(e.cost_usd for e in read_jsonl(tmp_path / "all.jsonl", Exchange)))
    assert found.usd <= 0.01
    assert found.stopped.startswith("usd: 0.00")


def test_when_the_seconds_are_over_nothing_is_waited_for_and_nothing_has_failed(tmp_path: Path) -> None:
    started = time.monotonic()
    with rough(lambda *_: "busy") as server:
        found = run(server, tmp_path / "all.jsonl", 1000, tries=1000, budget={"seconds": 1.0})
    assert time.monotonic() - started < 10
    assert found.stopped.startswith("seconds: ")
    assert (found.answered, found.failed) == (0, 0)


def test_a_model_in_this_process_is_asked_in_batches_within_the_same_budget(tmp_path: Path) -> None:
    path, model = tmp_path / "all.jsonl", open_model("fake:random")
    wanted = ask([user("a b"), user("c d")], Sampling(max_tokens=16), n=20)
    found = collect(model, [*wanted, *wanted], path, CollectPart(budget=Budget(tokens=300)))
    assert found.tokens_in + found.tokens_out <= 300
    assert found.stopped.startswith("tokens: ")
    assert collect(model, wanted, path, CollectPart()).answered == 40
    assert [e.id for e in stored(path, model.digest, wanted)] == [exchange_id(model.digest, r) for r in wanted]


def test_another_model_s_answers_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    path, wanted = tmp_path / "all.jsonl", requests(3)
    for address in ("fake:random", "fake:random,bias=1"):
        assert collect(open_model(address), wanted, path, CollectPart()).asked == 3
    assert len(stored(path, open_model("fake:random").digest, wanted)) == 3


SCRIPT = """
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from spiritsafe.make.data.collect import collect
from spiritsafe.make.data.settings import CollectPart
from spiritsafe.models import endpoint, open_model
from tests.make.data.test_collect import requests
endpoint.FIRST_PAUSE_S = 0.01
part = CollectPart(concurrency=4, timeout_s=0.5)
collect(open_model(sys.argv[1]), requests(80), Path(sys.argv[2]), part)
"""


def test_killed_at_random_points_nothing_is_lost_and_nothing_stored_is_asked_again(tmp_path: Path, root: Path) -> None:
    path, rng, kills = tmp_path / "all.jsonl", random.Random(5), 0
    with rough(lambda seed, attempt: FAILURES[seed % 5] if attempt == 1 else "", pause_s=0.02) as server:
        while True:
            held = {e.sampling.seed or 0 for e in read_jsonl(path, Exchange, on_torn=lambda _: None)}
            before = {seed: len(server.asks[seed]) for seed in held}
            process = subprocess.Popen([sys.executable, "-c", SCRIPT, server.address, str(path)], cwd=root)
            until = server.num_asks + rng.randrange(20, 50)
            while process.poll() is None and (kills == 4 or server.num_asks < until):
                time.sleep(0.001)
            assert {seed: len(server.asks[seed]) for seed in held} == before
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        asks = server.num_asks
    assert process.returncode == 0
    assert kills >= 3
    assert seeds(path) == list(range(80))
    # Each failed once; what was under way at a kill may be asked once more, or fail its first try unseen.
    assert asks <= 80 * 2 + kills * 4


class Narrow:
    """A model of this process that cannot read prompts of more than 20 characters."""

    address, digest = "narrow", "n" * 64

    def generate(self, requests: Sequence[Request], *, on_exchange: Any = None, on_text: Any = None) -> list[Exchange]:
        """Echo, or a failed exchange in the answer's place."""
        found = []
        for request, said in zip(requests, open_model("fake:echo").generate(requests), strict=True):
            if len(request.messages[-1].content) > 20:
                said = failed(self.address, self.digest, request, "is beyond the context", "request")
            found.append(said.model_copy(update={"id": exchange_id(self.digest, request), "model_digest": self.digest}))
            if on_exchange:
                on_exchange(found[-1])
        return found

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Any]:
        """Never asked."""
        raise AssertionError


def test_prompts_beyond_the_context_are_left_out_by_name_and_not_asked_again(tmp_path: Path) -> None:
    given = [Request(user("word " * n), Sampling()) for n in (1, 2, 3, 30, 40, 50)]
    path, settings = tmp_path / "exchanges" / "all.jsonl", CollectPart(max_failed=0)
    for asked in (6, 0):
        found = collect(Narrow(), given, path, settings)
        assert (found.answered, found.failed, found.asked) == (3, 3, asked)
        assert set(found.unanswered.values()) == {"is beyond the context"}
        assert found.unanswered.keys() == {exchange_id(Narrow.digest, r) for r in given[3:]}
