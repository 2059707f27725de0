"""Fitting the second stage: linear classifiers over an encoder's vectors of a sample, limits by cross-fitting.

A head is fitted to the vectors alone and then scaled, so that its scores spread as widely as the first stage's: fitted
to both at once, it would trust n-grams that know the sets learnt from, and find less of a set never seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints
from spiritsafe.guard.heads.dual import separated
from spiritsafe.guard.heads.language import Tongue
from spiritsafe.guard.heads.limits import FOREIGN, choose
from spiritsafe.guard.heads.linear import row_weights
from spiritsafe.guard.heads.sample import Sample
from spiritsafe.guard.heads.second import Second, joined

COST = 0.3
PASSES = 12
NEVER = -99.0
FIRST_ONLY = ("injection",)  # the encoder finds fewer of them than the n-grams do


@dataclass(frozen=True)
class Firsts:
    """First-stage scores (N, H): of rows learnt from by heads that did not see them, of others by the final heads."""

    names: tuple[str, ...]
    scores: Array


@dataclass(frozen=True)
class SecondFit:
    """The second stage with its limits by tongue and head."""

    second: Second
    limits: Mapping[Tongue, Mapping[str, float]]


def fit_second(corpus: Corpus, english: Sample, other: Sample, firsts: Firsts, rows: Bools) -> SecondFit:
    """Both encoders' heads from those of the rows (N) that the samples hold."""
    ours, limits = _heads(corpus, english, firsts, rows, ("english",))
    theirs, more = _heads(corpus, other, firsts, rows, ("german", "other"))
    return SecondFit(Second(ours, theirs), {**limits, **more})


def _heads(
    corpus: Corpus, sample: Sample, firsts: Firsts, rows: Bools, tongues: Sequence[Tongue]
) -> tuple[Array, dict[Tongue, dict[str, float]]]:
    """Weights from all rows of the sample, and limits for each of the tongues from the rows in it."""
    vectors_MD = sample.vectors
    weights, limits = np.zeros((vectors_MD.shape[1] + 1, len(firsts.names))), {t: dict[str, float]() for t in tongues}
    weights[-1] = NEVER
    for column, head in enumerate(firsts.names):
        says = corpus.says(head)
        known = _only(sample.rows, rows & (says >= 0))
        if head in FIRST_ONLY or not {0, 1} <= set(says[known].tolist()):
            for found in limits.values():
                found[head] = 0.0
            continue
        pulls, own = row_weights(corpus, known, says.astype(float)), known[sample.rows]
        first_M = firsts.scores[sample.rows, column]
        crossed_M = np.full(len(own), np.nan)
        for part in np.unique(corpus.parts):
            out = corpus.parts[sample.rows] == part
            part_weights = _fit(sample, says, pulls, own & ~out)
            crossed_M[own & out] = vectors_MD[own & out] @ part_weights[:-1] + part_weights[-1]
        scale = first_M[own].std() / crossed_M[own].std()
        scores = np.full(len(rows), np.nan)
        scores[sample.rows] = (first_M + scale * crossed_M) / 2
        for tongue, found in limits.items():
            budget = FOREIGN if head == "harmful" and tongue != "english" else None
            own_tongue = _only(sample.rows[sample.tongues == tongue], known)
            found[head] = choose(corpus, head, scores, own_tongue, budget)
        weights[:, column] = scale * _fit(sample, says, pulls, own)
    return weights.astype(np.float16).astype(float), limits


def _only(numbers: Ints, rows: Bools) -> Bools:
    """Of the rows (N), those with these numbers."""
    found = np.zeros(len(rows), bool)
    found[numbers] = True
    return found & rows


def _fit(sample: Sample, says: Ints, pulls: Array, own: Bools) -> Array:
    from scipy.sparse import csr_matrix

    numbers = sample.rows[own]
    return separated(
        csr_matrix(sample.vectors[own].astype(np.float32)), says[numbers] == 1, pulls[numbers], cost=COST, passes=PASSES
    )


def second_scores(second: Second, sample: Sample, firsts: Firsts, *, english: bool) -> Array:
    """Scores (M, H) of a sample's rows."""
    return joined(firsts.scores[sample.rows], sample.vectors, second.english if english else second.other)
