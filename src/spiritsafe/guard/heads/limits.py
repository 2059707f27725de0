"""Where a head's limit lies: chosen on development rows alone, by heads that did not see them.

Of the limits that flag no more of any set's harmless rows than its budget, the one that serves best, where serving is
the mean over sets of F1 (sets with harmless rows) or recall (sets without); where no row says yes, the lowest. In the
share of a set's harmless rows, each group of rows counts as one; fewer than 50 rows are no judge of shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints

OfSet = tuple[str, Array, Ints, Ints]
FEW = 50


@dataclass(frozen=True)
class Budget:
    """The share of harmless rows that may be flagged: of each set, and of those named."""

    each: float
    of: Mapping[str, float] = field(default_factory=dict)


BUDGETS = {
    "harmful": Budget(0.02, {"xstest": 0.08, "openai-moderation": 0.2, "bbq": 0.1, "ordinary": 0.03}),
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


FOREIGN = Budget(0.02, {"ordinary": 0.08, "frr-multilingual": 0.1, "hatecheck-de": 0.5})  # `harmful`, not English
BESIDE = Budget(0.01, {**BUDGETS["injection"].of, "pyrit-answers": 0.15})  # these rows are flagged anyway


def choose(corpus: Corpus, head: str, scores: Array, rows: Bools, budget: Budget | None = None) -> float:
    """The limit for rows with these scores; the head's budget, or another."""
    budget = budget or BUDGETS[head]
    says = corpus.says(head)
    known = rows & (says >= 0) & np.isfinite(scores)
    masks = [(name, own & known) for name, own in corpus.of_set.items()]
    sets = [(name, scores[own], says[own], corpus.groups[own]) for name, own in masks if own.any()]
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
        _share(scores[says == 0] >= limit, groups[says == 0]) <= budget.of.get(name, budget.each)
        for name, scores, says, groups in sets
        if (says == 0).sum() >= FEW
    )


def _share(flagged: Bools, groups: Ints) -> float:
    _, numbers = np.unique(groups, return_inverse=True)
    return float(np.mean(np.bincount(numbers, flagged) / np.bincount(numbers)))


def _served(sets: Sequence[OfSet], limit: float) -> float:
    found = []
    for _, scores, says, _ in sets:
        flagged, yes = scores >= limit, says == 1
        if yes.any():
            found.append(2 * (flagged & yes).sum() / (yes.sum() + flagged.sum()))
    return float(np.mean(found)) if found else 0.0
