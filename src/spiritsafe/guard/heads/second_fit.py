"""Fitting the second stage: linear classifiers over an encoder's vectors of a sample, limits by cross-fitting.

A head is fitted to the vectors alone and then scaled, so that its scores spread as widely as the first stage's: fitted
to both at once, it would trust n-grams that know the sets learnt from, and find less of a set never seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints
from spiritsafe.guard.heads.dual import separated
from spiritsafe.guard.heads.language import Tongue
from spiritsafe.guard.heads.limits import SECOND, calibrating, choose
from spiritsafe.guard.heads.linear import row_weights
from spiritsafe.guard.heads.sample import Sample
from spiritsafe.guard.heads.second import Second

COST = 0.3
PASSES = 12
NEVER = -99.0
UNTAUGHT = ("orbench-de", "orbench-fr")  # nearly all German and French there is: harmless, it taught that German is
FIRST_ONLY = ("injection",)  # the encoder finds fewer of them than the n-grams do


@dataclass(frozen=True)
class SecondFit:
    """The second stage: weights, limits by tongue and head, and scores (N, H) of the rows that an encoder read.

    Scores of rows learnt from are by heads that saw no row of their fold; NaN for rows that no encoder read.
    """

    second: Second
    limits: Mapping[Tongue, Mapping[str, tuple[float, ...]]]
    scores: Array


def fit_second(corpus: Corpus, english: Sample, other: Sample, firsts: Mapping[str, Array], rows: Bools) -> SecondFit:
    """Both encoders' heads from those of the rows (N) that the samples hold; `firsts` are scores (V) by head."""
    ours, limits, scores = _heads(corpus, english, firsts, rows, ("english",))
    theirs, more, others = _heads(corpus, other, firsts, rows, ("german", "other"))
    read = np.isin(np.arange(len(rows)), other.rows[other.tongues != "english"])
    return SecondFit(Second(ours, theirs), {**limits, **more}, np.where(read[:, None], others, scores))


def _heads(
    corpus: Corpus, sample: Sample, firsts: Mapping[str, Array], rows: Bools, tongues: Sequence[Tongue]
) -> tuple[Array, dict[Tongue, dict[str, tuple[float, ...]]], Array]:
    """Weights from all rows of the sample, limits for each of the tongues from the rows in it, and scores (N, H)."""
    limits: dict[Tongue, dict[str, tuple[float, ...]]] = {tongue: {} for tongue in tongues}
    weights = np.zeros((sample.vectors.shape[1] + 1, len(firsts)))
    weights[-1] = NEVER
    scores = np.full((len(rows), len(firsts)), np.nan)
    for column, (head, first_V) in enumerate(firsts.items()):
        own = rows[sample.rows] & (corpus.says(head)[sample.rows] >= 0)
        if head in FIRST_ONLY or not {0, 1} <= set(corpus.says(head)[sample.rows[own]].tolist()):
            continue
        weights[:, column], seconds_M = _one(corpus, sample, head, own, first_V)
        highest = np.full(len(rows), -np.inf)
        shown = sample.is_read(corpus)
        np.maximum.at(highest, sample.rows[shown], ((sample.firsts(corpus, first_V) + seconds_M) / 2)[shown])
        scores[:, column] = np.where(np.isfinite(highest), highest, np.nan)
        for tongue, found in limits.items():
            mine = _only(sample.rows[sample.tongues == tongue], rows | calibrating(corpus))
            found[head] = choose(corpus, head, scores[:, column], mine, SECOND[head])
    return weights, limits, scores


def _one(corpus: Corpus, sample: Sample, head: str, own: Bools, first_V: Array) -> tuple[Array, Array]:
    """Weights of one head, and scores (M) of all parts, those of rows learnt from by heads that saw not their fold."""
    says = corpus.says(head)
    taught = own & (sample.is_whole | (says[sample.rows] == 0)) & ~np.isin(corpus.source, UNTAUGHT)[sample.rows]
    numbers = sample.rows[taught]
    shares = 1 / np.sqrt(np.maximum(1, np.bincount(numbers, minlength=len(says))))
    pulls = row_weights(corpus, _only(numbers, np.ones(len(says), bool)), says.astype(float)) * shares
    crossed_M = np.full(len(own), np.nan)
    for part in np.unique(corpus.parts):
        out = corpus.parts[sample.rows] == part
        crossed_M[own & out] = _scored(sample, _fit(sample, says, pulls, taught & ~out))[own & out]
    first_M = sample.firsts(corpus, first_V)
    scale = first_M[taught].std() / crossed_M[taught].std()
    weights = (scale * _fit(sample, says, pulls, taught)).astype(np.float16).astype(float)
    return weights, np.where(own, scale * crossed_M, _scored(sample, weights))


def _scored(sample: Sample, weights: Array) -> Array:
    found: Array = sample.vectors @ weights[:-1] + weights[-1]
    return found


def _only(numbers: Ints, rows: Bools) -> NDArray[np.bool_]:
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
