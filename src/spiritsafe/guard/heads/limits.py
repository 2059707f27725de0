"""Where a head's limits lie: on rows that the heads did not see, of texts with as many pieces.

A text's score is the highest of its windows and pieces, so ordinary texts score higher the more pieces they have: there
is a limit for each of `COUNTS`, the same up to eight pieces, so that four sentences beside harm do not hide it. Each is
the lowest that flags no more of any set's harmless rows than its budget, and none is lower than that of shorter texts.
In the share of a set's rows each group counts as one; fewer than 50 rows (of real questions 20) are no judge of shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints
from spiritsafe.guard.heads.pieces import COUNTS

OfSet = tuple[str, Array, Ints, Ints]
FEW = 50
FEW_ASKED = 20  # of real questions, the only judge of long texts that there is
MISSED = {"harmful": 0.05, "injection": 0.05, "abusive": 0.3}  # by the second stage's not being asked
TRAFFIC = "sharegpt"  # real traffic: half of it, by its group's hash, is for limits


@dataclass(frozen=True)
class Budget:
    """The share of harmless rows that may be flagged: of each set, and of those named; of conversations `talks`."""

    each: float
    of: Mapping[str, float] = field(default_factory=dict)
    talks: float = 1.0


# Sets made to look harmful, or of subjects of which no other set is learnt from: scored by heads that saw none of their
# fold they are no measure of ordinary texts.
_LOOK_ALIKES = {
    "xstest": 0.25, "openai-moderation": 0.6, "bbq": 0.3, "hatecheck-de": 0.8, "orbench-en": 0.6, "orbench-de": 0.6,
    "orbench-fr": 0.6, "frr": 0.3, "frr-multilingual": 0.9, "cyberseceval-instruct": 0.5, "pyrit-answers": 0.6,
    "s-labs": 0.1, "notinject": 0.1, "ordinary": 0.1, "arena-hard": 0.08, "vicuna-de": 0.06, "vicuna-fr": 0.06,
}  # fmt: skip
# Requests for harm, which are no injections; what is flagged for the one may be flagged for the other.
_REQUESTS = dict.fromkeys(
    (
        "adv-bench", "harmbench", "ailuminate", "xstest", "harmfulqa", "catqa-en", "catqa-vi", "catqa-zh",
        "strongreject", "multijail-en", "multijail-it", "multijail-vi", "multijail-zh", "cyberseceval-interpreter",
        "bbh",
    ),
    0.3,
)  # fmt: skip
# Of conversations of eight questions all heads together may flag one in twenty-five, of first questions one in fifty:
# more is given to where it finds more harm.
BUDGETS = {
    "harmful": Budget(0.03, {**_LOOK_ALIKES, TRAFFIC: 0.013}, talks=0.032),
    "injection": Budget(0.02, {**_LOOK_ALIKES, **_REQUESTS, TRAFFIC: 0.009}, talks=0.018),
    "abusive": Budget(0.02, {**_LOOK_ALIKES, TRAFFIC: 0.002}, talks=0.004),
}
# The second stage's, beside which injections are flagged by the first.
SECOND = {
    "harmful": Budget(0.03, {**_LOOK_ALIKES, TRAFFIC: 0.012}, talks=0.026),
    "abusive": Budget(0.02, {**_LOOK_ALIKES, TRAFFIC: 0.001}, talks=0.004),
}
SPENT = (0.75, 0.95, 1.0)  # of a conversation's budget, when the limits up to each of `COUNTS` are set
BESIDE = Budget(0.02, {**_LOOK_ALIKES, **_REQUESTS, TRAFFIC: 0.004})  # these rows are flagged anyway


def choose(corpus: Corpus, head: str, scores: Array, rows: Bools, budget: Budget | None = None) -> tuple[float, ...]:
    """The limit for each of `COUNTS` for rows with these scores (N); the head's budget, or another."""
    budget = budget or BUDGETS[head]
    says = corpus.says(head)
    # What people ask is flagged more than what they are answered: a share of both together would promise too little.
    known = rows & corpus.asked & (says == 0) & np.isfinite(scores)
    found: list[float] = []
    talks = _Talks(corpus, known)
    for first, end, spent in zip(COUNTS, (*COUNTS[1:], np.inf), SPENT, strict=True):
        band = known & (corpus.counts >= first) & (corpus.counts < end)
        masks = [(name, own & band) for name, own in corpus.of_set.items()]
        # First questions are flagged more than later ones, and many people ask no second. Instructions to a model are
        # no injections in them: what flags those for `injection` is left its share of all questions.
        if head != "injection":
            masks += [(name, own & corpus.opens) for name, own in masks if name == TRAFFIC]
        sets = [
            (name, scores[own], corpus.groups[own])
            for name, own in masks
            if own.sum() >= (FEW_ASKED if name == TRAFFIC else FEW)
        ]
        lowest = [_lowest(scores_S, groups_S, budget.of.get(name, budget.each)) for name, scores_S, groups_S in sets]
        lowest.append(talks.lowest(scores, band, spent * budget.talks))
        found.append(max([*found, *lowest, -2.0 if first == 1 else found[-1]]))
        talks.flag(scores, band, found[-1])
    return tuple(found)


class _Talks:
    """Conversations of which the later questions are among the rows (N) given, and which of them are flagged so far."""

    def __init__(self, corpus: Corpus, rows: Bools) -> None:
        self._later = rows & corpus.continues
        names, numbers = np.unique(corpus.groups[self._later], return_inverse=True)
        self._of_row = np.full(len(rows), -1)
        self._of_row[self._later] = numbers
        self._highest = np.full(len(names), -np.inf)

    def lowest(self, scores: Array, band: Bools, budget: float) -> float:
        """The lowest limit of the rows in the band that leaves at most such a share of conversations flagged."""
        if len(self._highest) < FEW:
            return -2.0
        highest = self._highest.copy()
        own = self._later & band
        np.maximum.at(highest, self._of_row[own], scores[own])
        return _lowest(highest, np.arange(len(highest)), budget)

    def flag(self, scores: Array, band: Bools, limit: float) -> None:
        """Count the conversations that this limit of the band flags as flagged under every other."""
        own = self._later & band & (scores >= limit)
        self._highest[self._of_row[own]] = np.inf


def limits_of(counts: Ints, limits: Sequence[float]) -> Array:
    """The limit of each text by its number of pieces."""
    return np.asarray(limits, float)[np.searchsorted(COUNTS, counts, side="right") - 1]


def calibrating(corpus: Corpus) -> Bools:
    """The rows of real traffic that limits are chosen on."""
    return corpus.of_set.get(TRAFFIC, np.zeros(len(corpus.rows), bool)) & corpus.is_first_half


def clear_below(corpus: Corpus, head: str, scores: Array, rows: Bools) -> float:
    """The score that all but a few (`MISSED`) of the English rows reach that it should find, in half of the sets."""
    yes = rows & (corpus.says(head) == 1) & (corpus.lang == "en") & np.isfinite(scores)
    if not yes.any():
        return 0.0
    sets = [scores[own & yes] for own in corpus.of_set.values() if (own & yes).sum() >= FEW] or [scores[yes]]
    return float(np.median([np.quantile(each, MISSED[head]) for each in sets]))


def _lowest(scores: Array, groups: Ints, budget: float) -> float:
    """The lowest limit, in steps of 0.02, that at most such a share of the groups' rows reaches."""
    _, numbers = np.unique(groups, return_inverse=True)
    weights = 1 / np.bincount(numbers)[numbers]
    order = np.argsort(-scores)
    reached = np.cumsum(weights[order]) / weights.sum()
    allowed = int(np.searchsorted(reached, budget, side="right"))
    if allowed == len(scores):
        return -2.0
    highest_left = scores[order[allowed]]
    if not np.isfinite(highest_left):  # -inf: all that could be flagged may be; inf: what is flagged is so already
        return -2.0 if highest_left < 0 else 4.0
    return float(np.clip(np.floor(highest_left / 0.02 + 1) * 0.02, -2, 4))
