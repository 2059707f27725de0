"""Fitting the first stage: one linear classifier a head over hashed n-grams, rare ones weighing more."""

import numpy as np

from spiritsafe.guard.heads.corpus import Array, Bools, Corpus
from spiritsafe.guard.heads.dual import separated
from spiritsafe.guard.heads.ngrams import BITS

COST = 0.05
PASSES = 10  # for the time of five folds and three heads; more were not tried
IDEAS_COUNT = 2.0  # as much as that, other n-grams 1
# Harmless and made to sound harmful: at full weight, sets left out are found about 5 points less.
LESS = {"orbench-en": 0.2, "orbench-de": 0.2, "orbench-fr": 0.2}


def rarity(corpus: Corpus, rows: Bools) -> Array:
    """Inverse document frequency of each bucket in these rows; none for what occurs in one window alone, or in none."""
    windows = corpus.windows[rows[corpus.of_window] & (corpus.pieces < 0)]
    count = np.bincount(windows.indices, minlength=windows.shape[1])
    found = np.where(count > 1, np.log((1 + windows.shape[0]) / (1 + count)), 0.0)
    found[1 << BITS :] *= IDEAS_COUNT
    return found


def row_weights(corpus: Corpus, rows: Bools, says: Array) -> Array:
    """Weights of rows: a set counts with the root of its size, yes and no count alike; their mean is 1."""
    weights = np.zeros(len(rows))
    for name, mask in corpus.of_set.items():
        own = rows & mask
        weights[own] = LESS.get(name, 1.0) * max(1, own.sum()) ** -0.5
    for side in (0, 1):
        own = rows & (says == side)
        weights[own] *= 0.5 * rows.sum() / weights[own].sum()
    return weights


def crossed(corpus: Corpus, head: str, idf: Array, rows: Bools) -> Array:
    """Scores (V) of each window of the rows by a head that saw no row of its fold; NaN for the others."""
    out = np.full(len(corpus.of_window), np.nan)
    for part in np.unique(corpus.parts):
        weights, offset = fit_linear(corpus, head, rows & (corpus.parts != part), idf)
        own = (rows & (corpus.parts == part))[corpus.of_window]
        out[own] = corpus.windows[own] @ weights + offset
    return out


def fit_linear(corpus: Corpus, head: str, rows: Bools, idf: Array) -> tuple[Array, float]:
    """Weights (WIDTH) and offset of a head from those of the rows that say yes or no.

    Of a harmless text every piece is harmless; of a harmful one it is not known which piece does harm.
    """
    says = corpus.says(head)
    known = rows & (says >= 0)
    window = known[corpus.of_window] & ((corpus.pieces < 0) | (says[corpus.of_window] == 0))
    numbers = corpus.of_window[window]
    shares = 1 / np.sqrt(np.maximum(1, np.bincount(numbers, minlength=len(rows))))  # a text of many windows is one text
    weights = (row_weights(corpus, known, says.astype(float)) * shares)[numbers]
    found = separated(
        corpus.windows[window].multiply(idf.astype(np.float32)).tocsr(), says[numbers] == 1, weights,
        cost=COST, passes=PASSES,
    )  # fmt: skip
    return found[:-1] * idf, float(found[-1])
