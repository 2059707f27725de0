"""Fitting the first stage: one linear classifier a head over hashed n-grams, rare ones weighing more."""

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus
from spiritsafe.guard.heads.dual import separated
from spiritsafe.guard.heads.ngrams import BITS

COST = 0.1
LEAN = 0.5  # of `abusive` in `harmful`: requests for harm speak of what abusive texts speak of
IDEAS_COUNT = 2.0  # as much as that, other n-grams 1


def rarity(corpus: Corpus, rows: Bools) -> Array:
    """Inverse document frequency of each bucket in these rows; none for what occurs in one window alone, or in none."""
    windows = corpus.windows[rows[corpus.of_window]]
    count = np.bincount(windows.indices, minlength=windows.shape[1])
    found = np.where(count > 1, np.log((1 + windows.shape[0]) / (1 + count)), 0.0)
    found[1 << BITS :] *= IDEAS_COUNT
    return found


def row_weights(corpus: Corpus, rows: Bools, says: Array) -> Array:
    """Weights of rows: a set counts with the root of its size, yes and no count alike; their mean is 1."""
    weights = np.zeros(len(rows))
    for mask in corpus.of_set.values():
        own = rows & mask
        weights[own] = max(1, own.sum()) ** -0.5
    for side in (0, 1):
        own = rows & (says == side)
        weights[own] *= 0.5 * rows.sum() / weights[own].sum()
    return weights


def fit_linear(corpus: Corpus, head: str, rows: Bools, idf: Array) -> tuple[Array, float]:
    """Weights (WIDTH) and offset of a head from those of the rows that say yes or no; `harmful` leans on `abusive`."""
    weights, offset = _separated(corpus, head, rows, idf)
    if head == "harmful" and {0, 1} <= set(corpus.says("abusive")[rows].tolist()):
        more, further = _separated(corpus, "abusive", rows, idf)
        return weights + LEAN * more, offset + LEAN * further
    return weights, offset


def crossed(corpus: Corpus, head: str, idf: Array, rows: Bools) -> Array:
    """Scores (N) of each of the rows by a head that saw no row of its fold; NaN for the others."""
    out = np.full(len(corpus.rows), np.nan)
    for part in np.unique(corpus.parts):
        weights, offset = fit_linear(corpus, head, rows & (corpus.parts != part), idf)
        own = rows & (corpus.parts == part)
        out[own] = (corpus.highest(corpus.windows @ weights) + offset)[own]
    return out


def _separated(corpus: Corpus, head: str, rows: Bools, idf: Array) -> tuple[Array, float]:
    says = corpus.says(head)
    known = rows & (says >= 0)
    weights = row_weights(corpus, known, says.astype(float))
    window = known[corpus.of_window]
    numbers = corpus.of_window[window]
    found = separated(
        corpus.windows[window].multiply(idf.astype(np.float32)).tocsr(), says[numbers] == 1, weights[numbers], cost=COST
    )
    return found[:-1] * idf, float(found[-1])
