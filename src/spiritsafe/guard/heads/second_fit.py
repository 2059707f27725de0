"""Fitting the second stage: linear classifiers over what an encoder makes of a sample, limits by cross-fitting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints
from spiritsafe.guard.heads.dual import separated
from spiritsafe.guard.heads.limits import choose
from spiritsafe.guard.heads.linear import row_weights
from spiritsafe.guard.heads.sample import Sample
from spiritsafe.guard.heads.second import Second, draw_waves, english_features, other_features

COST = 10.0
NEVER = -9.0
PASSES = 12
FIRST_ONLY = ("injection",)  # the encoder finds fewer of them than the n-grams do


@dataclass(frozen=True)
class Firsts:
    """First-stage scores (N, H): of rows learnt from by heads that did not see them, of others by the final heads."""

    names: tuple[str, ...]
    scores: Array


@dataclass(frozen=True)
class SecondFit:
    """The second stage with its limits, for English and for the rest, by head."""

    second: Second
    limits: Mapping[str, Mapping[str, float]]


def fit_second(corpus: Corpus, english: Sample, other: Sample, firsts: Firsts, rows: Bools, *, seed: int) -> SecondFit:
    """Both encoders' heads from those of the rows (N) that the samples hold."""
    waves, phases = draw_waves(seed)
    means = _means(corpus, other, rows)
    seen = english_features(english.vectors, firsts.scores[english.rows], waves, phases)
    ours, limits = _heads(corpus, english, seen, firsts.names, rows)
    rest = other_features(other.vectors, firsts.scores[other.rows], means[1 - other.is_english.astype(int)])
    theirs, other_limits = _heads(corpus, other, rest, firsts.names, rows)
    return SecondFit(Second(ours, theirs, waves, phases, means), {"english": limits, "other": other_limits})


def second_scores(second: Second, sample: Sample, firsts: Firsts, *, english: bool) -> Array:
    """Scores (M, H) of a sample's rows."""
    first = firsts.scores[sample.rows]
    if english:
        seen, weights = english_features(sample.vectors, first, second.waves, second.phases), second.english
    else:
        seen = other_features(sample.vectors, first, second.means[1 - sample.is_english.astype(int)])
        weights = second.other
    found: Array = seen @ weights[:-1] + weights[-1]
    return found


def _means(corpus: Corpus, sample: Sample, rows: Bools) -> Array:
    """Mean vectors of harmless rows: English, and the rest."""
    harmless = np.array([not any(corpus.rows[i].says.values()) for i in sample.rows]) & rows[sample.rows]
    found = [sample.vectors[harmless & (sample.is_english == tongue)] for tongue in (True, False)]
    return (
        np.array([part.mean(0) if len(part) else sample.vectors.mean(0) for part in found])
        .astype(np.float16)
        .astype(float)
    )


def _heads(
    corpus: Corpus, sample: Sample, seen_MF: Array, names: Sequence[str], rows: Bools
) -> tuple[Array, dict[str, float]]:
    weights, limits = np.zeros((seen_MF.shape[1] + 1, len(names))), {}
    weights[-1] = NEVER
    for column, head in enumerate(names):
        says = corpus.says(head)
        known = np.zeros(len(rows), bool)
        known[sample.rows] = True
        known &= rows & (says >= 0)
        limits[head] = 0.0
        if head in FIRST_ONLY or not {0, 1} <= set(says[known].tolist()):
            continue
        pulls, own = row_weights(corpus, known, says.astype(float)), known[sample.rows]
        crossed = np.full(len(rows), np.nan)
        for part in np.unique(corpus.parts):
            out = corpus.parts[sample.rows] == part
            crossed[sample.rows[own & out]] = _product(
                seen_MF[own & out], _fit(seen_MF, sample, says, pulls, own & ~out)
            )
        limits[head] = choose(corpus, head, crossed, known)
        weights[:, column] = _fit(seen_MF, sample, says, pulls, own)
    return weights.astype(np.float16).astype(float), limits


def _fit(seen_MF: Array, sample: Sample, says: Ints, pulls: Array, own: Bools) -> Array:
    from scipy.sparse import csr_matrix

    numbers = sample.rows[own]
    return separated(
        csr_matrix(seen_MF[own].astype(np.float32)), says[numbers] == 1, pulls[numbers], cost=COST, passes=PASSES
    )


def _product(seen_MF: Array, weights: Array) -> Array:
    found: Array = seen_MF @ weights[:-1] + weights[-1]
    return found
