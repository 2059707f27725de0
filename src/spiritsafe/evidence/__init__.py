"""Intervals, paired tests, e-values, judge error, corrections for many tests: pure functions, no room's words."""

from spiritsafe.evidence.bulk import Change, bootstrap_changes
from spiritsafe.evidence.classic import (
    Estimate,
    Paired,
    betting_e_process,
    clustered_mean,
    conformal_p,
    holm,
    mcnemar,
    uniformity_p,
    wilson,
)
from spiritsafe.evidence.equivalence import equivalent_sums, jackknife_error, jackknife_values
from spiritsafe.evidence.judged import JudgeCounts, corrected_share
from spiritsafe.evidence.paired import (
    Comparison,
    Difference,
    clustered_share,
    compare_paired,
    compare_sums,
    equivalence_p,
    least_effect,
)
from spiritsafe.evidence.scores import compare_scores, mean_score

__all__ = [
    "Change",
    "Comparison",
    "Difference",
    "Estimate",
    "JudgeCounts",
    "Paired",
    "betting_e_process",
    "bootstrap_changes",
    "clustered_mean",
    "clustered_share",
    "compare_paired",
    "compare_scores",
    "compare_sums",
    "conformal_p",
    "corrected_share",
    "equivalence_p",
    "equivalent_sums",
    "holm",
    "jackknife_error",
    "jackknife_values",
    "least_effect",
    "mcnemar",
    "mean_score",
    "uniformity_p",
    "wilson",
]
