"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998).

Candidates come from bands of equal MinHash values; every one is checked by the exact Jaccard similarity of
the sets of n-grams, so that no two different texts are ever taken for near-duplicates. A pair at the threshold
is missed with probability `1 - recall` at most, more similar ones less often. Earlier texts are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from spiritsafe.make.data.ngrams import BASE, I64, U64, Grams, mixed, shingles, tokenise

MOST_HASHES = 128


@dataclass(frozen=True)
class Bands:
    """`num` bands of `rows` MinHash values each."""

    num: int
    rows: int

    def recall(self, jaccard: float) -> float:
        """The probability that a pair of this similarity becomes a candidate."""
        return float(1 - (1 - jaccard**self.rows) ** self.num)


@dataclass(frozen=True)
class Double:
    """Text `index` is a near-duplicate of the kept text `of`."""

    index: int
    of: int
    jaccard: float


def bands_for(threshold: float, recall: float) -> Bands:
    """The most selective bands with this recall at the threshold, of at most 128 hashes (one row where none has)."""
    found = Bands(_bands(threshold, 1, recall), 1)
    for rows in range(2, MOST_HASHES + 1):
        num = _bands(threshold, rows, recall)
        if num * rows > MOST_HASHES:
            break
        found = Bands(num, rows)
    return found


def near_duplicates(
    texts: Sequence[str], *, threshold: float = 0.8, ngram: int = 3, recall: float = 0.999
) -> list[Double]:
    """Every text that is a near-duplicate of a kept one before it, in order. Deterministic."""
    if not texts:
        return []
    sets = shingles(tokenise(texts, symbols=True), ngram)
    borders = np.searchsorted(sets.owners, np.arange(len(texts) + 1))
    keys = _shared_keys(_minhash(sets, borders, bands_for(threshold, recall)))
    seen: list[dict[int, list[int]]] = [{} for _ in range(keys.shape[1])]
    doubles = []
    for index in np.flatnonzero((keys >= 0).any(1)).tolist():
        own = [(held, key) for held, key in zip(seen, keys[index].tolist(), strict=True) if key >= 0]
        candidates = sorted({c for held, key in own for c in held.get(key, ())})
        best = _nearest(sets.hashes, borders, index, candidates)
        if best and best.jaccard >= threshold:
            doubles.append(best)
            continue
        for held, key in own:
            held.setdefault(key, []).append(index)
    return doubles


def _bands(threshold: float, rows: int, recall: float) -> int:
    return ceil(log(1 - recall) / log(1 - threshold**rows))


def _minhash(sets: Grams, borders: I64, bands: Bands) -> U64:
    """One 64-bit key for each text and band, shape (texts, bands)."""
    hashes = mixed(np.arange(1, 2 * bands.num * bands.rows + 1, dtype=np.uint64) * BASE)
    keys = np.empty((len(borders) - 1, bands.num), np.uint64)
    for band in range(bands.num):
        key = np.zeros(len(borders) - 1, np.uint64)
        for row in range(bands.rows):
            a, b = hashes[2 * (band * bands.rows + row) :][:2]
            values = (sets.hashes * (a | np.uint64(1)) + b) >> np.uint64(16)
            key = mixed(key * BASE + np.minimum.reduceat(values, borders[:-1]))
        keys[:, band] = key
    return keys


def _shared_keys(keys: U64) -> I64:
    """Keys as small numbers, -1 where no other text has the key."""
    found = np.full(keys.shape, -1, np.int64)
    for band in range(keys.shape[1]):
        _, number, times = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        shared = times[number] > 1
        found[shared, band] = number[shared]
    return found


def _nearest(hashes: U64, borders: I64, index: int, candidates: Sequence[int]) -> Double | None:
    """The most similar candidate, the earliest of equals, by exact Jaccard similarity."""
    if not candidates:
        return None
    own = hashes[borders[index] : borders[index + 1]]
    parts = [hashes[borders[c] : borders[c + 1]] for c in candidates]
    sizes = np.array([len(part) for part in parts])
    others = np.concatenate(parts)
    place = np.minimum(np.searchsorted(own, others), len(own) - 1)
    common = np.add.reduceat(own[place] == others, np.cumsum(sizes) - sizes, dtype=np.int64)
    similarity: NDArray[np.float64] = common / (len(own) + sizes - common)
    best = int(similarity.argmax())
    return Double(index, candidates[best], float(similarity[best]))
