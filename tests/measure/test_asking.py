"""Measuring over servers: one bad item is its own, budgets bind after each answer, nothing unknown is a verdict."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spiritsafe.errors import EndpointError, UsageError
from spiritsafe.guard.server import serving
from spiritsafe.measure.answered import split_thought, state_of, too_many
from spiritsafe.measure.compare import table_verdicts
from spiritsafe.measure.harness import Cell, Measured, Plan, measure, scored
from spiritsafe.measure.output import parse_gate
from spiritsafe.measure.registry import find_task
from spiritsafe.measure.task import Item
from spiritsafe.models import Request, endpoint, open_model, user
from spiritsafe.models.base import failed, identity
from spiritsafe.models.budget import Budget
from spiritsafe.record import Exchange, Sampling, read_jsonl

FILTERED = JSONResponse({"error": {"message": "filtered", "code": "content_filter"}}, 400)
DOWN = JSONResponse({"error": {"message": "down"}}, 503)


class Upstream:
    """A server that answers 42, or what `behave` says of the prompt's text; it counts what it is asked."""

    def __init__(self) -> None:
        self.behave: Callable[[str], Response | None] = lambda _: None
        self.asked: Counter[str] = Counter()
        self.usage: Any = {"prompt_tokens": 30, "completion_tokens": 20}
        self.address = ""

    async def complete(self, request: HttpRequest) -> Response:
        """One completion."""
        text = (await request.json())["messages"][-1]["content"]
        self.asked[text] += 1
        choice = {"message": {"content": "so 42"}, "finish_reason": "stop"}
        return self.behave(text) or JSONResponse({"choices": [choice], "usage": self.usage})


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """A server on loopback."""
    monkeypatch.setattr(endpoint, "pause_s", lambda *_: 0.0)
    found = Upstream()

    async def listed(_: HttpRequest) -> Response:
        return JSONResponse({"data": [{"id": "m"}]})

    routes = [Route("/chat/completions", found.complete, methods=["POST"]), Route("/models", listed)]
    with ExitStack() as stack:
        found.address = f"openai:m@{stack.enter_context(serving(Starlette(routes=routes)))}"
        yield found


@pytest.fixture
def data(tmp_path: Path) -> str:
    """40 questions whose answer is 42."""
    (tmp_path / "data/gsm8k").mkdir(parents=True)
    rows = [json.dumps({"question": f"Item {i}:", "answer": "#### 42"}) for i in range(40)]
    (tmp_path / "data/gsm8k/test.jsonl").write_text("\n".join(rows))
    return str(tmp_path / "data")


def asked(upstream: Upstream, data: str, out: Path, **plan: Any) -> Measured:
    """gsm8k, measured."""
    return measure([open_model(upstream.address)], [find_task("gsm8k")], out, Plan(data=data, **plan))


def stored(out: Path) -> list[Exchange]:
    """All that is on disk."""
    return [e for file in (out / "exchanges").glob("*.jsonl") for e in read_jsonl(file, Exchange)]


def only(text: str, answer: Response) -> Callable[[str], Response | None]:
    """That answer to prompts that hold the text."""
    return lambda prompt: answer if text in prompt else None


def test_a_provider_s_filter_is_that_item_s_and_is_neither_asked_again_nor_scored(
    upstream: Upstream, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.behave = only("Item 3:", FILTERED)
    found = asked(upstream, data, tmp_path / "out")
    assert len(found.cells[0].outcomes) == sum(found.cells[0].outcomes) == 39
    assert "of 40 answers 1 stopped by the provider's filter; 1 of 40 items left out" in capsys.readouterr().err
    assert [(u["state"], u["task"]) for u in found.unanswered] == [("filtered", "gsm8k")]
    assert Counter(e.error_kind for e in stored(tmp_path / "out")) == {"": 39, "filter": 1}
    assert asked(upstream, data, tmp_path / "out").cells == found.cells
    assert set(upstream.asked.values()) == {1}


def test_what_failed_for_a_while_is_asked_again_by_the_next_command(
    upstream: Upstream, data: str, tmp_path: Path
) -> None:
    upstream.behave = only("Item 7:", DOWN)
    found = asked(upstream, data, tmp_path / "out")
    assert found.unanswered[0]["state"] == "failed"
    assert "answered 503: down" in found.unanswered[0]["error"]
    assert len(stored(tmp_path / "out")) == 39
    upstream.behave = lambda _: None
    again = asked(upstream, data, tmp_path / "out")
    assert (len(again.cells[0].outcomes), again.unanswered) == (40, [])
    assert sum(upstream.asked.values()) == 39 + endpoint.TRIES + 1


def test_a_server_that_is_down_ends_it_with_what_was_answered_stored(
    upstream: Upstream, data: str, tmp_path: Path
) -> None:
    upstream.behave = lambda _: DOWN if sum(upstream.asked.values()) > 10 else None
    with pytest.raises(EndpointError, match=r"left \d+ requests in a row without an answer"):
        asked(upstream, data, tmp_path / "out")
    assert 8 <= len(stored(tmp_path / "out")) <= 10


def test_a_share_of_missing_answers_refuses_the_claim_and_its_gates(
    upstream: Upstream, data: str, tmp_path: Path
) -> None:
    upstream.behave = only("Item 1", FILTERED)  # 1 and 10 to 19
    found = asked(upstream, data, tmp_path / "out")
    [verdict] = table_verdicts(found.cells, seed=0)
    assert "cannot be said: of 40 answers 11 stopped by the provider's filter" in verdict.claim
    assert (verdict.detail["said"], verdict.interval) == (False, (0.0, 1.0))
    for gate in ("accuracy<=0.9", "accuracy>=0"):
        assert parse_gate(gate).failures([verdict]) == [verdict]


@pytest.mark.parametrize(("prompts", "right"), [("Item 3:", 39), ("Item 1", None)])
def test_a_few_empty_answers_are_wrong_ones_and_many_are_no_result(
    upstream: Upstream, data: str, tmp_path: Path, prompts: str, right: int | None
) -> None:
    silent = JSONResponse({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]})
    upstream.behave = only(prompts, silent)
    [cell] = asked(upstream, data, tmp_path / "out").cells
    assert cell.inconclusive == (right is None)
    assert right is None or (sum(cell.outcomes), len(cell.outcomes)) == (right, 40)
    assert cell.unanswered.startswith("of 40 answers ")


def test_one_missing_answer_never_refuses_a_claim_alone_and_a_tenth_does() -> None:
    assert [too_many(*pair) for pair in ((1, 8), (1, 3), (4, 40), (0, 1))] == [False] * 4
    assert [too_many(*pair) for pair in ((2, 8), (1, 1), (1, 2), (5, 40), (40, 40))] == [True] * 5


def test_dollars_are_bounded_only_if_a_price_is_known(upstream: Upstream, data: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--max-usd: the price of openai:m@.* is not known; say it: --usd-per-mtok"):
        asked(upstream, data, tmp_path / "out", budget=Budget(usd=1.0))
    assert not upstream.asked
    budget = Budget(usd=0.01, usd_per_million_in=10, usd_per_million_out=10)
    found = asked(upstream, data, tmp_path / "out", budget=budget)
    assert found.stopped.startswith("--max-usd: 0.00")
    spent = sum(e.cost_usd for e in stored(tmp_path / "out"))
    assert 0 < spent <= 0.01
    assert spent == pytest.approx(len(stored(tmp_path / "out")) * 50 * 10 / 1e6)
    local = measure([open_model("fake:echo")], [find_task("gsm8k")], tmp_path / "o", Plan(data=data, budget=budget))
    assert local.stopped == ""


@pytest.mark.parametrize(("budget", "least", "most"), [({"tokens": 5}, 1, 1), ({"tokens": 220}, 4, 6)])
def test_tokens_bind_after_the_answer_that_reaches_the_bound(
    upstream: Upstream, data: str, tmp_path: Path, budget: dict[str, int], least: int, most: int
) -> None:
    found = asked(upstream, data, tmp_path / "out", budget=Budget(**budget))
    assert "--max-tokens" in found.stopped
    assert least <= sum(upstream.asked.values()) == len(stored(tmp_path / "out")) <= most


def test_seconds_bind_within_a_batch_of_a_model_in_this_process(data: str, tmp_path: Path) -> None:
    plan = Plan(data=data, budget=Budget(seconds=0.5))
    found = measure([open_model("fake:slow=0.2")], [find_task("gsm8k")], tmp_path / "out", plan)
    assert "--max-seconds" in found.stopped
    assert 1 <= len(stored(tmp_path / "out")) < 40


def test_an_answer_without_counts_is_counted_by_its_bytes_and_that_is_said(
    upstream: Upstream, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.usage = None
    found = asked(upstream, data, tmp_path / "out", budget=Budget(tokens=300))
    assert "--max-tokens" in found.stopped
    assert sum(upstream.asked.values()) < 10
    assert "came without counts of tokens and were counted as one token a byte" in capsys.readouterr().err


def test_answers_may_be_longer_than_a_task_s_own() -> None:
    bbq = find_task("bbq-ambiguous")
    assert Plan(answer_tokens=4000).sampling(bbq).max_tokens == 4000 > bbq.sampling.max_tokens
    assert Plan().sampling(bbq).max_tokens == bbq.sampling.max_tokens


def exchange(answer: str, reason: Any = "stop", **more: Any) -> Exchange:
    """An exchange with this answer."""
    named = identity("m", "d", Request(user(f"question {answer} {more}"), Sampling()))
    return Exchange(**named, answer=answer, finish_reason=reason, **more)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (exchange("yes"), "answered"),
        (exchange("yes", "unknown"), "answered"),
        (exchange("cut in the", "length"), "answered"),
        (exchange(""), "empty"),
        (exchange(" \n"), "empty"),
        (exchange("", "length", reasoning="I think"), "unfinished"),
        (exchange("", reasoning="I think"), "unfinished"),
        (exchange("<think>so and", "length"), "unfinished"),
        (exchange("<think>so</think>B"), "answered"),
        (exchange("so</think>B"), "answered"),
        (exchange("so</think>"), "unfinished"),
        (exchange("", "tool_calls"), "unfinished"),
        (exchange("", "unknown"), "unfinished"),
        (exchange("half", "content_filter", error_kind="filter"), "filtered"),
        (failed("m", "d", Request(user("x"), Sampling()), "too long", "request"), "failed"),
        (exchange("No.", "content_filter", flags=("stopped",)), "answered"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_an_exchange_holds_an_answer_or_says_why_it_holds_none(found: Exchange, state: str) -> None:
    assert state_of(found) == state


def test_a_reasoning_that_the_template_began_ends_where_it_says_so() -> None:
    assert split_thought("Hmm, A is likely... </think>\n\nB") == ("Hmm, A is likely... ", "\n\nB")
    assert split_thought("[THINK]a[/THINK]b") == ("a", "b")
    assert split_thought("<thinking>a</thinking>b") == ("a", "b")


def safety(kind: str, exchanges: list[Exchange]) -> dict[str, Cell]:
    """The cells of a task of safety, by metric."""
    task = find_task({"harmful": "simple-safety-tests", "harmless": "xstest-safe"}[kind])
    items = [Item(e.messages, "") for e in exchanges]
    return {cell.metric: cell for cell in scored("m", task, items, exchanges)}


@pytest.mark.parametrize("kind", ["harmful", "harmless"])
def test_a_server_that_only_reasons_refuses_nothing(kind: str) -> None:
    thinking = [exchange("", "length", reasoning=f"let me see {i}") for i in range(10)]
    [cell] = safety(kind, thinking).values()
    assert cell.inconclusive
    assert "of 10 answers 10 ended within its reasoning" in cell.unanswered


def test_what_the_provider_filtered_is_an_outcome_of_its_own() -> None:
    gone = [failed("m", "d", Request(user(f"f{i}"), Sampling()), "filtered", "filter") for i in range(4)]
    cells = safety("harmful", [*gone, *(exchange(f"I can't help with that. {i}") for i in range(6))])
    assert cells["filtered"].outcomes == (1,) * 4 + (0,) * 6
    assert cells["rejected"].outcomes == (0,) * 4 + (1,) * 6
    assert sum(cells["unsafe"].outcomes) == 0
    harmless = safety("harmless", [*gone, exchange("Sure, here you go.")])
    assert (sum(harmless["over_refusal"].outcomes), sum(harmless["filtered"].outcomes)) == (0, 4)
