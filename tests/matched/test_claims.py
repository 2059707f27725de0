"""What a comparison claims: found where every prompt says so, kept back where they do not, adjusted for the pairs."""

from typing import Any

import pytest

from spiritsafe.matched.claims import Heldout, curves, fidelity_claims, task_claims
from spiritsafe.matched.costs import costs
from spiritsafe.matched.trial import Look, Trial, trials
from spiritsafe.recipe_matched import MatchedPart, MatchedRecipe, MethodName
from spiritsafe.record import Verdict

NUM = 24
HELDOUT = Heldout((10,) * NUM, (40,) * NUM, seed=0, resamples=200)
PROMPTS = [5 + (7 * i % 11) / 10 for i in range(NUM)]


def look(method: MethodName, number: int, shift: float, *, share: float = 1.0, **more: Any) -> Look:
    """A look at a student whose KL lies `shift` above the prompts' own, by a little more at every other prompt."""
    kl = tuple(p + shift * (1 + i % 2 / 10) for i, p in enumerate(PROMPTS))
    spent = {"steps": 5, "answer_tokens": 100, "tokens": 300, "wall_s": 2.0, "cpu_s": 3.0, "before_s": 1.0}
    clocks = {"scoring_s": 0.0, "writing_s": 0.0, "read": 0, "written": 0}
    sums = {"agree": (4.0,) * NUM, "bits": (20.0,) * NUM, "accepted": (3.0,) * NUM}
    given: dict[str, Any] = {**spent, **clocks, **sums, "kl": kl, **more}
    return Look(budget="tokens", method=method, number=number, share=share, **given)


BEFORE: dict[str, Any] = {"kl": [9.0] * NUM, "agree": [1.0] * NUM, "bits": [30.0] * NUM, "accepted": [1.0] * NUM}


def pairs(*looks: Look) -> dict[str, Verdict]:
    """The paired verdicts by subject."""
    return {v.subject: v for v in fidelity_claims(looks, BEFORE, HELDOUT) if v.name == "kl difference"}


def test_a_method_that_is_nearer_at_every_prompt_is_found_and_by_how_much() -> None:
    found = pairs(look("text", 0, 1.0), look("cached", 0, 0.0))["cached KD vs SFT at equal tokens"]
    assert found.rejected
    assert found.claim == "cached KD is closer to the teacher than SFT."
    assert found.value == pytest.approx(-0.105)
    assert found.interval is not None
    assert found.interval[0] < -0.105 < found.interval[1] < 0


def test_methods_that_are_alike_are_not_told_apart() -> None:
    found = pairs(look("text", 0, 0.0), look("cached", 0, 0.0))["cached KD vs SFT at equal tokens"]
    assert (found.value, found.p_value, found.rejected) == (0.0, 1.0, False)
    assert found.claim == "No difference between cached KD and SFT could be shown."


def test_seeds_that_disagree_are_told_and_their_mean_is_compared() -> None:
    looks = [look("text", 0, 1.0), look("text", 1, 0.0), look("cached", 0, 0.0), look("cached", 1, 1.0)]
    found = pairs(*looks)["cached KD vs SFT at equal tokens"]
    assert found.value == pytest.approx(0.0)
    assert found.detail["closer_in_seeds"] == "1 of 2"


def test_p_values_are_adjusted_for_the_number_of_pairs() -> None:
    found = pairs(look("text", 0, 0.01), look("cached", 0, 0.0), look("online", 0, 0.0))
    assert len(found) == 3
    smallest = min(v.p_value for v in found.values() if v.p_value is not None)
    adjusted = [v.p_adjusted for v in found.values() if v.p_value == smallest]
    assert adjusted[0] == pytest.approx(min(1.0, 3 * smallest))


def test_a_curve_begins_at_the_start_where_nothing_is_spent() -> None:
    looks = [look("text", 0, 1.0, share=0.5, answer_tokens=50, wall_s=1.0), look("text", 0, 0.0)]
    first, half, whole = curves(looks, BEFORE, HELDOUT)
    assert (first["kl"], first["tokens"], first["loop_s"], first["before_s"]) == (0.9, 0.0, 0.0, 1.0)
    assert (half["tokens"], whole["tokens"]) == (50, 100)
    assert first["kl"] > half["kl"] > whole["kl"]
    assert whole["low"] <= whole["kl"] <= whole["high"]


def test_tasks_are_compared_with_the_first_method_on_the_same_tasks() -> None:
    solved = {Trial("tokens", "text", 0): [False] * 20, Trial("tokens", "online", 0): [True] * 20}
    found = {v.subject: v for v in task_claims(solved, {"teacher": [True] * 20}, seed=0)}
    assert found["teacher"].value == 1
    assert found["online KD vs SFT at equal tokens"].value == 1
    assert found["online KD vs SFT at equal tokens"].rejected


def recipe(**matched: Any) -> MatchedRecipe:
    """A recipe with two methods."""
    parts = {"run": {"name": "small"}, "teacher": {"model": "fake:x"}, "prompts": {"num_train": 4, "num_heldout": 2}}
    given = {"budget_tokens": 100, "methods": ["text", "cached"], "num_seeds": 1, **matched}
    return MatchedRecipe.model_validate({"kind": "matched", **parts, "make": {"num_layers": 1}, "matched": given})


def entry(stage: str, wall_s: float) -> dict[str, Any]:
    """A ledger's entry."""
    return {"stage": stage, "wall_s": wall_s, "cpu_s": 2 * wall_s}


def test_what_was_done_once_for_all_is_borne_by_each_method_that_needs_it() -> None:
    stages = [entry("prompts", 9.0), entry("answers", 4.0), entry("signals", 2.0)]
    stages += [entry("tokens-text-0", 3.0), entry("tokens-cached-0", 3.5)]
    looks = [look("text", 0, 0.0, before_s=4.0), look("cached", 0, 0.0, before_s=6.0)]
    told = costs(stages, looks, recipe(), written=50, signals_read=70)
    text, cached = told["each"]
    assert (text["total_s"], cached["total_s"]) == (6.0, 8.0)
    assert (text["answers_s"], cached["answers_s"], cached["signals_s"]) == (4.0, 4.0, 2.0)
    assert (text["teacher_wrote"], text["teacher_read"], cached["teacher_read"]) == (50, 0, 70)
    assert sum(part["wall_s"] for part in told["parts"]) == pytest.approx(21.5)


def test_on_its_own_answers_alone_a_student_needs_none_of_the_teachers() -> None:
    stages = [entry("answers", 4.0), entry("signals", 0.0), entry("tokens-text-0", 3.0), entry("tokens-on-policy-0", 3)]
    looks = [look("text", 0, 0.0, before_s=4.0), look("on-policy", 0, 0.0, before_s=0.0, written=80)]
    given = recipe(methods=["text", "on-policy"], own_share=1.0)
    own = costs(stages, looks, given, written=50, signals_read=0)["each"][1]
    assert (own["teacher_wrote"], own["answers_s"], own["student_wrote"]) == (0, 0.0, 80)


def test_every_method_is_trained_for_every_budget_with_every_seed_side_by_side() -> None:
    wanted = trials(MatchedPart(budget_tokens=1, budget_seconds=1.0, num_seeds=2))
    assert len(wanted) == len({t.name for t in wanted}) == 3 * 2 * 4
    assert [t.method for t in wanted[:4]] == ["text", "cached", "online", "on-policy"]
    assert {t.budget for t in trials(MatchedPart(budget_tokens=1))} == {"tokens"}
