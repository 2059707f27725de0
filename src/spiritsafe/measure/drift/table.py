"""The drift table: each quantity of each model with its interval, and what changed between two generations.

A change is tested twice, both paired on the same prompts: against no change, and, by two one-sided tests, for lying
within a stated margin. Each of the two questions is Holm-adjusted over the whole table. So a pair may be shown to
differ, to be alike, both (a small sure difference) or neither.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pydantic import Field

from spiritsafe.evidence import (
    Estimate,
    clustered_mean,
    compare_paired,
    compare_sums,
    equivalence_p,
    equivalent_sums,
    holm,
    wilson,
)
from spiritsafe.record import Record, Verdict

SAMPLE = ("prompts are a sample of their set",)
SHARED = (
    "one training run a generation: intervals cover the choice of prompts, not another training",
    "all comparisons with one generation share its errors",
)
SHORT_OF = "of 20 prompts with exponential differences the equivalence test's level 0.05 is 0.08"


class Quantity(Record):
    """One quantity of several models on the same prompts: `sums` by model and `weights`, one each a prompt.

    A model's value is sum(sums) / sum(weights) over the prompts it answered; a sum is None if it did not answer.
    Models are compared on the prompts that both answered. `unanswered` says by model what is missing; of the models in
    `inconclusive` too much is, and nothing is claimed. Yes/no outcomes (`is_yes_no`) have weights of 1. Without a
    `margin` a quantity is reported and not tested.
    """

    name: str
    unit: str
    method: str
    sums: Mapping[str, tuple[float | None, ...]]
    weights: tuple[float, ...]
    margin: float | None = None
    is_yes_no: bool = False
    most: float | None = None
    limits: tuple[str, ...] = ()
    unanswered: dict[str, str] = Field(default_factory=dict)
    inconclusive: tuple[str, ...] = ()

    def answered(self, *models: str) -> list[int]:
        """The prompts that all of these models answered."""
        return [i for i in range(len(self.weights)) if all(self.sums[model][i] is not None for model in models)]

    def sums_at(self, model: str, places: Sequence[int]) -> list[float]:
        """A model's sums at prompts that it answered."""
        return [value for i in places if (value := self.sums[model][i]) is not None]

    def weights_at(self, places: Sequence[int]) -> list[float]:
        """The weights of some prompts."""
        return [self.weights[i] for i in places]

    def missing(self, *models: str) -> str:
        """Why nothing is claimed of these models; "" if something is."""
        return "; ".join(f"{m}: {self.unanswered[m]}" for m in models if m in self.inconclusive)


@dataclass(frozen=True)
class Change:
    """A difference (later - earlier) with its interval, and its two p-values before Holm."""

    later: str
    earlier: str
    estimate: Estimate
    p_change: float
    p_alike: float
    least_effect: float


@dataclass(frozen=True)
class Design:
    """Where each model stands: its generation and branch; which pairs (later, earlier) are compared; how."""

    places: dict[str, tuple[int, str]]
    pairs: tuple[tuple[str, str], ...]
    alpha: float
    seed: int
    resamples: int


def drift_verdicts(quantities: Sequence[Quantity], design: Design) -> list[Verdict]:
    """Levels of all quantities, then the changes of those with a margin, Holm-adjusted over all that can be tested."""
    levels = [_level(q, model, design) for q in quantities for model in q.sums]
    asked = [(q, pair) for q in quantities if q.margin for pair in design.pairs]
    found = [None if q.missing(*pair) else change(q, *pair, design) for q, pair in asked]
    tested = [c for c in found if c is not None]
    moved = iter(holm([c.p_change for c in tested]))
    alike = iter(holm([c.p_alike for c in tested]))
    changes = [
        _change_unsaid(q, pair, design) if c is None else _changed(q, c, next(moved), next(alike), design)
        for (q, pair), c in zip(asked, found, strict=True)
    ]
    return [*levels, *changes]


def level(quantity: Quantity, model: str, *, seed: int, resamples: int) -> Estimate:
    """A model's value: Wilson's interval for yes/no outcomes, else the bootstrap-t over prompts."""
    places = quantity.answered(model)
    sums = quantity.sums_at(model, places)
    if quantity.is_yes_no:
        return wilson(sum(sums), len(sums))
    bounds = (0.0, inf if quantity.most is None else quantity.most)
    return clustered_mean(sums, quantity.weights_at(places), seed=seed, resamples=resamples, bounds=bounds)


def change(quantity: Quantity, later: str, earlier: str, design: Design) -> Change:
    """Compare two models on the prompts that both answered."""
    assert quantity.margin is not None
    places = quantity.answered(later, earlier)
    first = quantity.sums_at(later, places)
    second = quantity.sums_at(earlier, places)
    weights = quantity.weights_at(places)
    if quantity.is_yes_no:
        found = compare_paired([s > 0 for s in first], [s > 0 for s in second], seed=design.seed)
        p_alike = equivalence_p(found, quantity.margin)
        estimate = Estimate(found.difference, found.low, found.high, found.n)
        return Change(later, earlier, estimate, found.p_value, p_alike, found.least_effect)
    moved = compare_sums(first, second, weights, seed=design.seed, resamples=design.resamples)
    p_alike = equivalent_sums(first, second, weights, margin=quantity.margin, seed=design.seed)
    estimate = Estimate(moved.difference, moved.low, moved.high, moved.n)
    return Change(later, earlier, estimate, moved.p_value, p_alike, moved.least_effect)


def _level(quantity: Quantity, model: str, design: Design) -> Verdict:
    generation, branch = design.places[model]
    place = {"generation": generation, "branch": branch}
    if missing := quantity.missing(model):
        return _unsaid(quantity, model, f"{quantity.name} of the {model}", missing, design, place)
    found = level(quantity, model, seed=design.seed, resamples=design.resamples)
    left_out = quantity.unanswered.get(model, "")
    return Verdict(
        room="measure",
        name=quantity.name,
        subject=model,
        claim=f"{quantity.name} of the {model}: {found.value:.3g} {quantity.unit}.",
        value=found.value,
        unit=quantity.unit,
        interval=(found.low, found.high),
        n=found.n,
        seed=design.seed,
        method=f"{quantity.method}; {'Wilson interval' if quantity.is_yes_no else 'bootstrap-t over prompts'}",
        assumptions=SAMPLE,
        limits=(SHARED[0], *quantity.limits, *((f"{model}: {left_out}",) if left_out else ())),
        detail=place,
    )


def _change_unsaid(quantity: Quantity, pair: tuple[str, str], design: Design) -> Verdict:
    later, earlier = pair
    what = f"whether {quantity.name} of the {later} differs from that of the {earlier}"
    change_of = quantity.model_copy(update={"name": f"change in {quantity.name}"})
    return _unsaid(change_of, f"{later} vs {earlier}", what, quantity.missing(*pair), design, {"alike": False})


def _unsaid(
    quantity: Quantity, subject: str, what: str, missing: str, design: Design, detail: dict[str, Any]
) -> Verdict:
    """No claim: too many answers are none. The value says nothing, and is not shown."""
    return Verdict(
        room="measure",
        name=quantity.name,
        subject=subject,
        claim=f"{what} cannot be said: {missing}.",
        value=0.0,
        unit=quantity.unit,
        n=len(quantity.weights),
        seed=design.seed,
        method="none: too many answers are missing",
        limits=(SHARED[0], missing),
        detail={**detail, "said": False, "inconclusive": True},
    )


def _changed(quantity: Quantity, found: Change, p_change: float, p_alike: float, design: Design) -> Verdict:
    moved, alike = p_change <= design.alpha, p_alike <= design.alpha
    way = "higher" if found.estimate.value > 0 else "lower"
    says = f"is {way} than" if moved else "is not shown to differ from"
    within = f"within ±{quantity.margin:g}" if alike else f"not shown to be within ±{quantity.margin:g}"
    test = "exact McNemar; TOST on Bonett and Price's interval" if quantity.is_yes_no else (
        "random signs of prompts; TOST by Student's t and the studentised bootstrap"
    )  # fmt: skip
    return Verdict(
        room="measure",
        name=f"change in {quantity.name}",
        subject=f"{found.later} vs {found.earlier}",
        claim=f"{quantity.name} of the {found.later} {says} that of the {found.earlier}, {within}.",
        value=found.estimate.value,
        unit=quantity.unit,
        interval=(found.estimate.low, found.estimate.high),
        n=found.estimate.n,
        seed=design.seed,
        method=f"paired on the same prompts; {test}; Holm over the table",
        assumptions=SAMPLE,
        limits=(*SHARED, *(() if quantity.is_yes_no else (SHORT_OF,)), *quantity.limits),
        p_value=found.p_change,
        p_adjusted=p_change,
        rejected=moved,
        detail={
            "margin": quantity.margin, "alike_p": found.p_alike, "alike_p_adjusted": p_alike, "alike": alike,
            "least_effect": found.least_effect,
        },
    )  # fmt: skip
