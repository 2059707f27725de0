"""Answers are checked by value, in threads, and hostile ones end in time."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spiritsafe.checks import verify as checking
from spiritsafe.checks.verify import Checkers, outcome
from spiritsafe.errors import RunError
from spiritsafe.make.data.verify import Check, verify
from spiritsafe.models import Request, open_model, user
from spiritsafe.prompts import Prompt, task_prompts
from spiritsafe.recipe import TaskPart
from spiritsafe.record import Sampling, prompt_digest, read_jsonl

HOSTILE = (
    "10**10**10",
    "\\boxed{10^{10^{10}}}",
    "The answer is $9^{9^{9^{9}}}$.",
    "\\boxed{(10^{10})!}",
    "$\\sum_{n=1}^{10^{12}} \\frac{1}{n^n}$",
    "(" * 50_000,
    "\\frac{" * 20_000,
    "\\sqrt{" * 500 + "2" + "}" * 500,
    "$" + "+".join(f"x_{{{i}}}^{{{i}}}" for i in range(3000)) + "$",
    "1" * 1_000_000,
    "\\boxed{" * 10_000,
    "\x00\ud83d"[:1] * 1000,
    "$\\int_0^1 e^{\\sin(\\cos(\\tan(x^x)))} dx = 42$",
)


def problem(answer: str, text: str = "How much?") -> Prompt:
    """A prompt with a reference answer."""
    messages = user(text)
    return Prompt(
        digest=prompt_digest(messages), messages=messages, split="train", source="test", options={"answer": answer}
    )


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("42", "First 6, then 7. The answer is \\boxed{42}.", True),
        ("42", "I thought \\boxed{41}, but no: \\boxed{42}", True),
        ("42", "I thought \\boxed{42}, but no: \\boxed{41}", False),
        ("\\frac{1}{2}", "It is 0.5", True),
        ("1/2", "$x = \\frac{3}{6}$", True),
        ("1,200", "She has 1200 left.", True),
        ("$x^2+2x+1$", "$(x+1)^2$", True),
        ("72", "She sold 71 clips.", False),
        ("Paris", "Paris.", True),
        ("Paris", "\\boxed{paris}", True),
        ("Paris", "London, not Paris", False),
        ("3/4", "2/8 + 1/2", True),
        ("$a^2 - b^2$", "$(a - b)(a + b)$", True),
        ("$\\frac{x^2 - y^2}{x - y} + z$", "$x + y + z$", True),
        ("$1.5\\times 10^3$", "1500", True),
        ("$\\{1, 2\\}$", "$\\{2, 1\\}$", True),
        ("$2\\sqrt{2}$", "$\\sqrt{8}$", True),
    ],
)
def test_values_are_compared_not_texts(reference: str, answer: str, expected: bool) -> None:
    assert outcome(problem(reference), answer) == ("correct" if expected else "wrong")


def test_hostile_answers_end_in_time_and_the_next_is_checked_as_if_nothing_had_been() -> None:
    started = time.monotonic()
    with Checkers(limit_s=0.5, workers=2) as checkers, ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda answer: checkers.check(problem("42"), answer), HOSTILE))
        assert checkers.check(problem("42"), "so 42") == "correct"
        assert checkers.check(problem("42"), "so 43") == "wrong"
    assert "correct" not in outcomes[:-1]
    assert outcomes[0] == "stopped" or outcomes[1] == "stopped"
    assert time.monotonic() - started < 100


def test_a_thinking_part_is_not_the_answer() -> None:
    with Checkers(workers=1) as checkers:
        assert checkers.check(problem("42"), "<think>maybe \\boxed{42}</think> It is 41") == "wrong"
        assert checkers.check(problem("42"), "<think>maybe \\boxed{41}</think> It is 42") == "correct"


@pytest.mark.slow
def test_reasoning_gym_s_own_scorer_judges_its_items_and_outcomes_are_kept(tmp_path: Path) -> None:
    from reasoning_gym import create_dataset

    tasks = task_prompts([TaskPart(family="basic_arithmetic", num=4)], seed=0)
    data = create_dataset("basic_arithmetic", seed=tasks[0].options["seed"], size=4)
    said = [data[tasks[0].index]["answer"], "no idea", f"So it is {data[tasks[2].index]['answer']}", ""]
    exchanges = [
        open_model(f"fake:fixed={text}").generate([Request(p.messages, Sampling())])[0]
        for p, text in zip(tasks, said, strict=True)
    ]
    path, by_id = tmp_path / "checks.jsonl", {e.id: p for e, p in zip(exchanges, tasks, strict=True)}
    first = verify(exchanges[:3], by_id, path)
    assert list(first.values()) == ["correct", "wrong", "correct"]
    assert list(verify(exchanges, by_id, path).values()) == [*first.values(), "wrong"]
    assert sorted(c.id for c in read_jsonl(path, Check)) == sorted(by_id)
    verify(exchanges, {i: p.model_copy(update={"index": (p.index + 1) % 4}) for i, p in by_id.items()}, path)
    assert len(read_jsonl(path, Check)) == 8


def test_a_checking_process_that_ends_at_its_start_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "START", "import sys; sys.path[:] = {path}; sys.exit(3)")
    with Checkers() as checkers, pytest.raises(RunError, match="the process that checks answers: ended at its"):
        checkers.layers()


def test_a_checking_process_that_never_starts_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "START", "import sys, time; sys.path[:] = {path}; time.sleep(60)")
    monkeypatch.setattr(checking, "START_S", 0.1)
    with Checkers() as checkers, pytest.raises(RunError, match="did not start within"):
        checkers.layers()
