"""Rates corrected for a judge that errs, its own sensitivity and specificity known from human labels only.

Point: Rogan and Gladen (Am. J. Epidemiol. 107, 1978). Interval: Lang and Reiczigel (Prev. Vet. Med. 113,
2014), which carries the uncertainty of all three shares.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from spiritsafe.evidence.classic import Estimate

LEAST_YOUDEN = 0.1


@dataclass(frozen=True)
class JudgeCounts:
    """A judge against human labels: of `positives` it found `hits`, of `negatives` it passed `passes`."""

    hits: int
    positives: int
    passes: int
    negatives: int


def corrected_share(flagged: int, n: int, judge: JudgeCounts, *, confidence: float = 0.95) -> Estimate | None:
    """True share where a judge flagged `flagged` of `n`; None where the judge cannot say.

    It cannot where the lower bound of sensitivity + specificity - 1 is below 0.1: the flags then hold
    next to nothing. Raises `ValueError` where n or a labelled class is empty.
    """
    if min(n, judge.positives, judge.negatives) < 1:
        raise ValueError("a corrected share needs outcomes, and human labels of both classes")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    se, sp = (judge.hits + 1) / (judge.positives + 2), (judge.passes + 1) / (judge.negatives + 2)
    var_se, var_sp = se * (1 - se) / (judge.positives + 2), sp * (1 - sp) / (judge.negatives + 2)
    youden = se + sp - 1
    if youden - z * sqrt(var_se + var_sp) < LEAST_YOUDEN:
        return None
    p = (flagged + z * z / 2) / (n + z * z)
    centre = (p + sp - 1) / youden
    share = min(1.0, max(0.0, centre))
    half = z * sqrt(p * (1 - p) / (n + z * z) + share**2 * var_se + (1 - share) ** 2 * var_sp) / youden
    shift = 2 * z * z * (share * var_se - (1 - share) * var_sp)
    low, high = _bounded(centre + shift - half), _bounded(centre + shift + half)
    raw = judge.hits / judge.positives + judge.passes / judge.negatives - 1
    value = _bounded((flagged / n + judge.passes / judge.negatives - 1) / raw)
    return Estimate(value, min(low, value), max(high, value), n)


def _bounded(value: float) -> float:
    return min(1.0, max(0.0, value))
