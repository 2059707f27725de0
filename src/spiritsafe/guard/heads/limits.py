"""Where a head's limit lies: chosen on development rows alone, by heads that did not see them.

Of the limits that flag no more of any set's harmless rows than its budget, the one that serves best, where serving is
the mean over sets of F1 (sets with harmless rows) or recall (sets without).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints

OfSet = tuple[str, Array, Ints]


@dataclass(frozen=True)
class Budget:
    """The share of harmless rows that may be flagged: of each set, and of those named."""

    each: float
    of: Mapping[str, float] = field(default_factory=dict)


BUDGETS = {
    "harmful": Budget(0.02, {"xstest": 0.09, "openai-moderation": 0.2, "bbq": 0.1, "ordinary": 0.03}),
    "injection": Budget(
        0.01,
        {
            "s-labs": 0.03, "openai-moderation": 0.1, "chatterbot": 0.05, "harmbench": 0.1, "adv-bench": 0.1,
            "pyrit-answers": 0.05, "bbq": 0.05,
        },
    ),
    "abusive": Budget(
        0.01,
        {
            "openai-moderation": 0.25, "hatecheck-de": 0.5, "chatterbot": 0.03, "pyrit-answers": 0.25, "bbq": 0.05,
            "xstest": 0.02,
        },
    ),
}  # fmt: skip


BESIDE = Budget(0.01, {**BUDGETS["injection"].of, "pyrit-answers": 0.15})  # these rows are flagged anyway


def choose(corpus: Corpus, head: str, scores: Array, rows: Bools, budget: Budget | None = None) -> float:
    """The limit for rows with these scores; the head's budget, or another."""
    budget = budget or BUDGETS[head]
    says = corpus.says(head)
    known = rows & (says >= 0) & np.isfinite(scores)
    masks = [(name, own & known) for name, own in corpus.of_set.items()]
    sets = [(name, scores[own], says[own]) for name, own in masks if own.any()]
    grid = np.round(np.arange(-2, 2.001, 0.02), 2)
    allowed = [limit for limit in grid if _within(budget, sets, limit)] or [grid[-1]]
    return float(allowed[int(np.argmax([_served(sets, limit) for limit in allowed]))])


def clear_below(corpus: Corpus, head: str, scores: Array, rows: Bools) -> float:
    """The score below which no set has more than 2 % of the rows that the head should find."""
    yes = rows & (corpus.says(head) == 1) & np.isfinite(scores)
    sets = [scores[own & yes] for own in corpus.of_set.values() if (own & yes).sum() >= 50] or [scores[yes]]
    return float(min(np.quantile(each, 0.02) for each in sets))


def _within(budget: Budget, sets: Sequence[OfSet], limit: float) -> bool:
    """Whether no set has more of its harmless rows flagged than it may."""
    return all(
        (scores[says == 0] >= limit).mean() <= budget.of.get(name, budget.each)
        for name, scores, says in sets
        if (says == 0).any()
    )


def _served(sets: Sequence[OfSet], limit: float) -> float:
    found = []
    for _, scores, says in sets:
        flagged, yes = scores >= limit, says == 1
        if yes.any():
            found.append(2 * (flagged & yes).sum() / (yes.sum() + flagged.sum()))
    return float(np.mean(found))
