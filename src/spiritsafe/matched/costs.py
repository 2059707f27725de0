"""What a comparison cost: by part, adding up to the ledger, and each method by itself, its teacher's work included.

Seconds are wall time; money is wall time at the recipe's rate, as in the ledger.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from spiritsafe.matched.trial import BUDGETS, METHODS, Look, Trial, trials
from spiritsafe.recipe_matched import MatchedRecipe

ANSWERS, SIGNALS = "the teacher's answers to learn from", "the teacher's signals, kept"
SHARED = "prompts, held-out answers, start, tasks before, verdicts"


def costs(
    entries: Sequence[Mapping[str, Any]],
    looks: Sequence[Look],
    recipe: MatchedRecipe,
    *,
    written: int,
    signals_read: int,
) -> dict[str, Any]:
    """`parts` sum to the ledger of the same `entries`; `each` is one training of a method, a mean over its seeds.

    `written` are the tokens of the teacher's answers, `signals_read` those that it read to keep its signals.
    """
    by_stage = {entry["stage"]: entry for entry in entries}
    last = {Trial(x.budget, x.method, x.number): x for x in looks if x.share == 1}
    wanted = trials(recipe.matched)
    parts = [_part(ANSWERS, [by_stage["answers"]]), _part(SIGNALS, [by_stage["signals"]])]
    for method in recipe.matched.methods:
        mine = [t for t in wanted if t.method == method]
        parts += _trainings(METHODS[method], [by_stage[t.name] for t in mine], [last[t] for t in mine])
    known = {"answers", "signals", *(t.name for t in wanted)}
    parts.append(_part(SHARED, [entry for entry in entries if entry["stage"] not in known]))
    for part in parts:
        part["usd"] = part["wall_s"] / 3600 * recipe.ledger.usd_per_hour
    groups: dict[tuple[str, str], list[Look]] = {}
    for trial, look in last.items():
        groups.setdefault((trial.budget, trial.method), []).append(look)
    sampled = {m: 0 if m == "on-policy" and recipe.matched.own_share == 1 else written for m in METHODS}
    each = [
        _each(group, by_stage, sampled[group[0].method], signals_read, recipe.ledger.usd_per_hour)
        for group in groups.values()
    ]
    return {"parts": parts, "each": each}


def _part(name: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"part": name, "wall_s": sum(e["wall_s"] for e in entries), "cpu_s": sum(e["cpu_s"] for e in entries)}


def _trainings(label: str, entries: Sequence[Mapping[str, Any]], looks: Sequence[Look]) -> list[dict[str, Any]]:
    """A method's trainings by the loop's clock, and what else their stages did: loading, looks, tasks."""
    whole = _part(f"{label}: loading, looks, tasks", entries)
    loop = {"wall_s": sum(x.wall_s for x in looks), "cpu_s": sum(x.cpu_s for x in looks)}
    rest = {key: whole[key] - loop[key] for key in ("wall_s", "cpu_s")}
    return [{"part": f"{label}: {len(looks)} trainings", **loop}, {"part": whole["part"], **rest}]


def _each(
    group: Sequence[Look], by_stage: Mapping[str, Any], written: int, signals_read: int, usd_per_hour: float
) -> dict[str, Any]:
    """One training of a method by itself, as if nobody else had asked the teacher."""
    first = group[0]
    signals_s = by_stage["signals"]["wall_s"] if first.method == "cached" else 0.0
    loop_s, scoring_s, writing_s = (
        fmean(getattr(x, key) for x in group) for key in ("wall_s", "scoring_s", "writing_s")
    )
    total_s = first.before_s + loop_s
    return {
        "budget": first.budget,
        "budget_name": BUDGETS[first.budget],
        "method": first.method,
        "label": METHODS[first.method],
        "num_seeds": len(group),
        "steps": fmean(x.steps for x in group),
        "answer_tokens": fmean(x.answer_tokens for x in group),
        "answers_s": first.before_s - signals_s,
        "signals_s": signals_s,
        "scoring_s": scoring_s,
        "writing_s": writing_s,
        "learning_s": loop_s - scoring_s - writing_s,
        "loop_s": loop_s,
        "total_s": total_s,
        "usd": total_s / 3600 * usd_per_hour,
        "teacher_wrote": written,
        "teacher_read": fmean(x.read for x in group) + (signals_read if first.method == "cached" else 0),
        "student_wrote": fmean(x.written for x in group),
    }
