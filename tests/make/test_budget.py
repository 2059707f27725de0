"""A budget ends a training, in tokens or seconds; stopped on the way it goes on as if nobody had stopped it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from spiritsafe.errors import DataError
from spiritsafe.make.loop import Budget, Spent, train
from spiritsafe.make.loop.budget import Way
from spiritsafe.make.loop.schedule import learning_rate, rate_along
from spiritsafe.make.methods import Text
from spiritsafe.models.local import load_parts
from spiritsafe.recipe import TrainPart
from tests.make.trains import data

PART = TrainPart(epochs=50, batch=4, learning_rate=3e-3, checkpoint_every=5, dtype="float32", diagnose_every=0)
TOKENS = Budget(answer_tokens=400)
MOST_PER_STEP = 4 * 13


def fit(folder: Path, part: TrainPart = PART, **options: Any) -> tuple[Any, Spent, list[dict[str, float | int]]]:
    """Train the tiny model from its start; returns it, what was spent and the steps of this call."""
    model, _ = load_parts(folder)
    told: list[dict[str, float | int]] = []
    method = Text(data(), part, seed=1)
    spent = train(model, method, part, seed=3, first_trained=2, on_step=told.append, **options)
    return model, spent, told


def same(one: Any, other: Any) -> bool:
    """Whether two models have the same bits."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_budget_of_tokens_ends_at_the_first_step_after_it_is_spent(tiny_folder: Path) -> None:
    _, spent, told = fit(tiny_folder, budget=TOKENS)
    assert spent.answer_tokens == sum(m["answer_tokens"] for m in told)
    assert 400 <= spent.answer_tokens < 400 + MOST_PER_STEP
    assert spent.answer_tokens - told[-1]["answer_tokens"] < 400
    assert spent.tokens == sum(m["tokens"] for m in told)
    assert spent.steps == len(told)


def test_without_a_budget_what_was_spent_is_all_steps_of_the_method(tiny_folder: Path) -> None:
    part = PART.model_copy(update={"epochs": 2})
    _, spent, told = fit(tiny_folder, part)
    assert spent.answer_tokens == 2 * sum(len(s.answer_ids) for s in data())
    assert spent.wall_s == pytest.approx(sum(m["elapsed_s"] for m in told))
    assert spent.cpu_s == pytest.approx(sum(m["cpu_s"] for m in told))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("average", [0.0, 0.8])
def test_a_training_cut_in_four_ends_with_the_same_bits(
    tiny_folder: Path, tmp_path: Path, schedule: str, average: float
) -> None:
    part = PART.model_copy(update={"schedule": schedule, "average": average})
    whole, all_of_it, _ = fit(tiny_folder, part, budget=TOKENS)
    steps = 0
    for until in (0.25, 0.5, 0.75, 1.0):
        cut, spent, told = fit(tiny_folder, part, budget=TOKENS, until=until, checkpoint=tmp_path / "c.pt")
        steps += len(told)
        assert until * 400 <= spent.answer_tokens < until * 400 + MOST_PER_STEP
        assert same(cut, whole) == (until == 1.0)
    assert (spent.steps, spent.answer_tokens) == (all_of_it.steps, all_of_it.answer_tokens)
    assert steps == spent.steps


def test_a_call_that_is_already_there_does_no_step(tiny_folder: Path, tmp_path: Path) -> None:
    first, spent, _ = fit(tiny_folder, budget=TOKENS, until=0.5, checkpoint=tmp_path / "c.pt")
    again, same_spent, told = fit(tiny_folder, budget=TOKENS, until=0.5, checkpoint=tmp_path / "c.pt")
    assert told == []
    assert same_spent == spent
    assert same(first, again)


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_a_budget_of_seconds_ends_at_the_first_step_after_it_and_a_continued_one_goes_on_counting(
    tiny_folder: Path, tmp_path: Path, clock: Any
) -> None:
    budget, name = Budget(seconds=0.4, clock=clock), {"wall": "elapsed_s", "cpu": "cpu_s"}[clock]
    half = fit(tiny_folder, budget=budget, until=0.5, checkpoint=tmp_path / "c.pt")
    whole = fit(tiny_folder, budget=budget, checkpoint=tmp_path / "c.pt")
    times = [m[name] for _, _, told in (half, whole) for m in told]
    assert sum(times) >= 0.4
    assert sum(times[:-1]) < 0.4
    assert sum(m[name] for m in half[2]) >= 0.2
    assert (whole[1].wall_s if clock == "wall" else whole[1].cpu_s) == pytest.approx(sum(times))


def test_what_others_spent_before_counts_but_moves_no_learning_rate(tiny_folder: Path) -> None:
    spent = Spent(steps=3, answer_tokens=30, wall_s=2.0, cpu_s=3.0)
    way = Way(Text(data(), PART, seed=1), Budget(seconds=10, before_s=6))
    assert way.gone(spent) == pytest.approx(0.8)
    assert way.trained(spent) == pytest.approx(0.5)
    _, none, told = fit(tiny_folder, budget=Budget(seconds=1, before_s=1.5))
    assert (none.steps, told) == (0, [])


def test_the_budget_that_is_spent_first_ends_the_training() -> None:
    spent = Spent(answer_tokens=30, wall_s=2.0)
    method = Text(data(), PART, seed=1)
    assert Way(method, Budget(answer_tokens=100, seconds=4)).gone(spent) == pytest.approx(0.5)
    assert Way(method, Budget(answer_tokens=40, seconds=4)).gone(spent) == pytest.approx(0.75)


def test_a_budget_that_the_samples_cannot_fill_is_an_error_and_not_a_shorter_training(tiny_folder: Path) -> None:
    part = PART.model_copy(update={"epochs": 1})
    with pytest.raises(DataError, match=r"text: its samples end after \d+ answer tokens, \d+% of the budget; allow"):
        fit(tiny_folder, part, budget=Budget(answer_tokens=4000))


def test_a_checkpoint_of_another_budget_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    fit(tiny_folder, budget=TOKENS, until=0.5, checkpoint=tmp_path / "c.pt")
    with pytest.raises(DataError, match=r"budget\.answer_tokens differ"):
        fit(tiny_folder, budget=Budget(answer_tokens=500), checkpoint=tmp_path / "c.pt")


def test_a_budget_without_a_bound_is_no_budget() -> None:
    with pytest.raises(ValueError, match="a number of tokens or of seconds"):
        Budget()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_along_many_small_steps_the_rate_is_that_of_a_known_number_of_them(schedule: str) -> None:
    part = PART.model_copy(update={"schedule": schedule})
    for step in range(100, 1000, 50):
        assert rate_along(step / 1000, part) == pytest.approx(learning_rate(step, 1000, part), rel=0.02)
    assert rate_along(0.0, part) == pytest.approx(0.1 * part.learning_rate)
    assert rate_along(0.0, part.model_copy(update={"warmup": 0.0})) == part.learning_rate
