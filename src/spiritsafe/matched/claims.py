"""Verdicts of a comparison: each method at each budget, every two of them paired, and the curves on the way.

A method's value at a prompt is the mean over its seeds; intervals are over prompts. How far the seeds lie apart is
told beside, since three of them give no interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import fmean
from typing import Any

from spiritsafe.evidence import clustered_mean, compare_sums, holm
from spiritsafe.house import START
from spiritsafe.matched.trial import BUDGETS, METHODS, SUMS, BudgetName, Look, Trial, subject_of
from spiritsafe.measure.accuracy import Solved, accuracy_verdict, difference_verdict
from spiritsafe.measure.fidelity import METHOD, Fidelity, fidelity_verdicts
from spiritsafe.recipe_matched import MethodName
from spiritsafe.record import Verdict

ALPHA = 0.05
Looks = Mapping[tuple[BudgetName, MethodName], Sequence[Look]]


@dataclass(frozen=True)
class Heldout:
    """The held-out answers' tokens and bytes, and how intervals over them are drawn."""

    tokens: tuple[int, ...]
    num_bytes: tuple[int, ...]
    seed: int
    resamples: int


def fidelity_claims(looks: Sequence[Look], before: Mapping[str, Any], heldout: Heldout) -> list[Verdict]:
    """How near each is to the teacher where its budget is spent, and every two methods compared."""
    verdicts = _of(START, {key: tuple(before[key]) for key in SUMS}, heldout)
    found = _grouped([look for look in looks if look.share == 1])
    for (budget, method), group in found.items():
        sums = {key: _over_seeds([getattr(look, key) for look in group]) for key in SUMS}
        verdicts += [_told(v, budget, method, group) for v in _of(subject_of(budget, method), sums, heldout)]
    for budget in dict.fromkeys(b for b, _ in found):
        verdicts += _pairs(budget, {m: group for (b, m), group in found.items() if b == budget}, heldout)
    return verdicts


def task_claims(solved: Mapping[Trial, Solved], fixed: Mapping[str, Solved], *, seed: int) -> list[Verdict]:
    """Shares of tasks solved by start, teacher and the first student of each method; methods against the first one."""
    verdicts = [accuracy_verdict(name, outcomes, seed=seed) for name, outcomes in fixed.items()]
    for trial, outcomes in solved.items():
        verdict = accuracy_verdict(trial.subject, outcomes, seed=seed)
        verdicts.append(_marked(verdict, trial.budget, trial.method, seeds=1))
    for trial, outcomes in solved.items():
        first = next(t for t in solved if t.budget == trial.budget)
        if trial != first:
            name = f"{METHODS[trial.method]} vs {METHODS[first.method]} at {BUDGETS[trial.budget]}"
            verdict = difference_verdict(trial.subject, first.subject, outcomes, solved[first], seed=seed)
            verdicts.append(verdict.model_copy(update={"subject": name, "detail": {"budget": trial.budget}}))
    return verdicts


def curves(looks: Sequence[Look], before: Mapping[str, Any], heldout: Heldout) -> list[dict[str, Any]]:
    """Held-out KL on the way of each budget: means over seeds with intervals over prompts, from the start on."""
    points = []
    for (budget, method), mine in _grouped(looks).items():
        points.append({**_point(before["kl"], heldout), "tokens": 0.0, "loop_s": 0.0, "share": 0.0, "seeds": []})
        points[-1] |= {"before_s": mine[0].before_s, "budget": budget, "method": method, "label": METHODS[method]}
        for share in dict.fromkeys(x.share for x in mine):
            at = [x for x in mine if x.share == share]
            kl = _over_seeds([x.kl for x in at])
            point: dict[str, Any] = {
                "tokens": fmean(x.answer_tokens for x in at),
                "loop_s": fmean(x.wall_s for x in at),
            }
            point |= {"share": share, "seeds": [_mean(x, heldout) for x in at]}
            points.append({**points[-1], **_point(kl, heldout), **point})
    return points


def _grouped(looks: Sequence[Look]) -> dict[tuple[BudgetName, MethodName], list[Look]]:
    groups: dict[tuple[BudgetName, MethodName], list[Look]] = {}
    for look in looks:
        groups.setdefault((look.budget, look.method), []).append(look)
    return groups


def _point(kl: Sequence[float], heldout: Heldout) -> dict[str, Any]:
    found = clustered_mean(kl, heldout.tokens, seed=heldout.seed, resamples=heldout.resamples, bounds=(0.0, inf))
    return {"kl": found.value, "low": found.low, "high": found.high, "n": found.n}


def _of(subject: str, sums: Mapping[str, tuple[float, ...]], heldout: Heldout) -> list[Verdict]:
    """The verdicts of one model; the calibration error is none of them, since a mean over seeds has none."""
    bins = ((0.0,),) * len(heldout.tokens)
    found = Fidelity(**sums, tokens=heldout.tokens, num_bytes=heldout.num_bytes, bins=bins)
    told = fidelity_verdicts(subject, found, seed=heldout.seed, resamples=heldout.resamples)
    return [v for v in told if v.name != "calibration error"]


def _told(verdict: Verdict, budget: BudgetName, method: MethodName, group: Sequence[Look]) -> Verdict:
    """The verdict with its place in the comparison, and, for the KL, what each seed gave."""
    verdict = _marked(verdict, budget, method, seeds=len(group))
    spread = f"a mean over {len(group)} seeds of the training; the interval covers prompts, not seeds"
    return verdict.model_copy(update={"limits": (*verdict.limits, spread)})


def _marked(verdict: Verdict, budget: BudgetName, method: MethodName, *, seeds: int) -> Verdict:
    place = {"budget": budget, "method": method, "seeds": seeds}
    return verdict.model_copy(update={"detail": {**verdict.detail, **place}})


def _pairs(budget: BudgetName, found: Mapping[MethodName, Sequence[Look]], heldout: Heldout) -> list[Verdict]:
    """Every two methods on the same prompts, adjusted for the number of pairs."""
    pairs = list(combinations(found, 2))
    verdicts = [_pair(budget, later, earlier, found[later], found[earlier], heldout) for earlier, later in pairs]
    adjusted = holm([v.p_value if v.p_value is not None else 1.0 for v in verdicts])
    return [_said(v, p, pair) for v, p, pair in zip(verdicts, adjusted, pairs, strict=True)]


def _pair(
    budget: BudgetName,
    first: MethodName,
    second: MethodName,
    firsts: Sequence[Look],
    seconds: Sequence[Look],
    heldout: Heldout,
) -> Verdict:
    one, other = (_over_seeds([x.kl for x in group]) for group in (firsts, seconds))
    found = compare_sums(one, other, heldout.tokens, seed=heldout.seed, resamples=heldout.resamples)
    closer = sum(_mean(a, heldout) < _mean(b, heldout) for a, b in zip(firsts, seconds, strict=True))
    return Verdict(
        room="measure",
        name="kl difference",
        subject=f"{METHODS[first]} vs {METHODS[second]} at {BUDGETS[budget]}",
        claim="",
        value=found.difference,
        unit="nats/token",
        interval=(found.low, found.high),
        n=found.n,
        seed=heldout.seed,
        method=f"paired on the same prompts, means over seeds, random signs of prompts, Holm over pairs; {METHOD}",
        assumptions=("prompts are independent draws of the teacher's own prompt distribution",),
        limits=("covers prompts, not seeds of the training", "one learning rate for all methods, tuned for none"),
        p_value=found.p_value,
        detail={
            "budget": budget,
            "closer_in_seeds": f"{closer} of {len(firsts)}",
            "least_effect": found.least_effect,
        },
    )


def _said(verdict: Verdict, adjusted: float, pair: tuple[MethodName, MethodName]) -> Verdict:
    """The verdict with its adjusted p-value and what follows from it."""
    clear = adjusted <= ALPHA
    second, first = (METHODS[m] for m in pair)
    closer = f"{first} is {'closer to' if verdict.value < 0 else 'farther from'} the teacher than {second}."
    open_ = f"No difference between {first} and {second} could be shown."
    return verdict.model_copy(update={"p_adjusted": adjusted, "rejected": clear, "claim": closer if clear else open_})


def _over_seeds(sums: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Each prompt's mean over seeds."""
    return tuple(fmean(values) for values in zip(*sums, strict=True))


def _mean(look: Look, heldout: Heldout) -> float:
    return sum(look.kl) / sum(heldout.tokens)
