"""Accuracy on verifiable tasks, and the exact paired comparison of two models on the same tasks."""

from collections.abc import Sequence

from spiritsafe.checks.verify import UNSCORABLE, outcomes
from spiritsafe.errors import DataError
from spiritsafe.evidence import mcnemar, wilson
from spiritsafe.prompts import Prompt
from spiritsafe.record import Exchange, Verdict

CHECK = "the family's own verifier on the answer's last number, or on all of it; greedy decoding"
# Beyond this share of answers that nobody could score, a share of solved tasks says nothing.
MOST_UNSCORED = 0.05
Solved = Sequence[bool | None]


def correct(exchanges: Sequence[Exchange], tasks: Sequence[Prompt]) -> list[bool | None]:
    """Whether each answer solves its task; None for one that could not be scored, or that never came."""
    given = [e for e in exchanges if not e.error_kind]
    asked = [t for e, t in zip(exchanges, tasks, strict=True) if not e.error_kind]
    found = iter(outcomes(asked, [e.answer for e in given]))
    said = [None if e.error_kind else next(found) for e in exchanges]
    return [None if outcome is None or outcome in UNSCORABLE else outcome == "correct" for outcome in said]


def accuracy_verdict(subject: str, solved: Solved, *, seed: int) -> Verdict:
    """Share of tasks solved, with Wilson's interval; no claim if too many could not be scored. Raises `DataError`."""
    known = [outcome for outcome in solved if outcome is not None]
    unscored = len(solved) - len(known)
    if not known:
        raise DataError(f"tasks of the {subject}", f"none of {unscored} answers could be scored", "look at them")
    found = wilson(sum(known), len(known))
    claim = f"The {subject} solves {found.value:.0%} of the held-out verifiable tasks."
    if unscored > MOST_UNSCORED * len(solved):
        claim = f"What the {subject} solves cannot be said: {unscored} of {len(solved)} answers could not be scored."
    return Verdict(
        room="measure",
        name="task accuracy",
        subject=subject,
        claim=claim,
        value=found.value,
        unit="share of tasks",
        interval=(found.low, found.high),
        n=found.n,
        seed=seed,
        method=f"{CHECK}; Wilson interval",
        assumptions=("tasks are independent draws of the family's generator",),
        limits=("the task families of the recipe only", *_missing(unscored, len(solved))),
        detail={"unscorable": unscored} if unscored else {},
    )


def difference_verdict(first: str, second: str, solved: Solved, others: Solved, *, seed: int) -> Verdict:
    """Difference in accuracy (first - second) on the tasks that both were scored on, exact McNemar."""
    pairs = [(a, b) for a, b in zip(solved, others, strict=True) if a is not None and b is not None]
    left_out = len(solved) - len(pairs)
    found = mcnemar([a for a, _ in pairs], [b for _, b in pairs])
    clear = found.p_value <= 0.05
    more = "more" if found.difference > 0 else "fewer"
    claim = f"The {first} solves {more} tasks than the {second}." if clear else ""
    if left_out > MOST_UNSCORED * len(solved):
        clear = False
        claim = f"Nothing is said of the {first} and the {second}: {left_out} of {len(solved)} tasks were not scored."
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
        limits=(
            f"{found.only_first + found.only_second} of {found.n} tasks tell the two apart",
            *_missing(left_out, len(solved)),
        ),
        p_value=found.p_value,
        rejected=clear,
    )


def _missing(num: int, of: int) -> tuple[str, ...]:
    return (f"{num} of {of} could not be scored and are left out",) if num else ()
