"""Accuracy on verifiable tasks, and the exact paired comparison of two models on the same tasks."""

from collections.abc import Callable, Sequence

from spiritsafe.evidence import mcnemar, wilson
from spiritsafe.record import Exchange, Verdict

CHECK = "the family's own verifier on the answer's last number, or on all of it; greedy decoding"


def correct(exchanges: Sequence[Exchange], checks: Sequence[Callable[[str], bool]]) -> list[bool]:
    """Whether each answer passes its own check."""
    return [check(e.answer) for e, check in zip(exchanges, checks, strict=True)]


def accuracy_verdict(subject: str, outcomes: Sequence[bool], *, seed: int) -> Verdict:
    """Share of tasks solved, with Wilson's interval."""
    found = wilson(sum(outcomes), len(outcomes))
    return Verdict(
        room="measure",
        name="task accuracy",
        subject=subject,
        claim=f"The {subject} solves {found.value:.0%} of the held-out verifiable tasks.",
        value=found.value,
        unit="share of tasks",
        interval=(found.low, found.high),
        n=found.n,
        seed=seed,
        method=f"{CHECK}; Wilson interval",
        assumptions=("tasks are independent draws of the family's generator",),
        limits=("the task families of the recipe only",),
    )


def difference_verdict(
    first: str, second: str, outcomes: Sequence[bool], others: Sequence[bool], *, seed: int
) -> Verdict:
    """Difference in accuracy (first - second) on the same tasks, exact McNemar."""
    found = mcnemar(outcomes, others)
    clear = found.p_value <= 0.05
    more = "more" if found.difference > 0 else "fewer"
    claim = f"The {first} solves {more} tasks than the {second}." if clear else ""
    return Verdict(
        room="measure",
        name="task accuracy difference",
        subject=f"{first} vs {second}",
        claim=claim or f"No difference between the {first} and the {second} could be shown on these tasks.",
        value=found.difference,
        unit="share of tasks",
        interval=(found.low, found.high),
        n=found.n,
        seed=seed,
        method="exact McNemar on the same tasks; Newcombe interval",
        assumptions=("tasks are independent draws of the family's generator",),
        limits=(f"{found.only_first + found.only_second} of {found.n} tasks tell the two apart",),
        p_value=found.p_value,
        rejected=clear,
    )
