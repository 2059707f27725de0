"""Many paired differences at once by the bootstrap over clusters, as matrix products.

Clusters that contribute equal sums are drawn together: resampling n clusters is drawing multinomial counts
of the distinct ones. The draws have the distribution of an ordinary bootstrap, at a fraction of its work.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CHUNK = 250


@dataclass(frozen=True)
class Change:
    """Difference (on - off) of one category, its percentile interval, and the records behind it."""

    difference: float
    low: float
    high: float
    n: int


def bootstrap_changes(
    off: NDArray[np.bool_],
    on: NDArray[np.bool_],
    categories: NDArray[np.int64],
    clusters: NDArray[np.int64],
    *,
    draws: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Change]:
    """Difference of shares (on - off) for each category 0, 1, ...; all four arrays (N).

    A draw that holds no record of a category says nothing about it. Raises `ValueError` for a category
    without records.
    """
    num = int(categories.max()) + 1
    sizes = np.bincount(categories, minlength=num)
    if not sizes.all():
        raise ValueError("a category without records has no difference")
    rows, counts = _distinct(off, on, categories, clusters, num)
    random = np.random.Generator(np.random.Philox(seed))
    total, found = int(counts.sum()), np.empty((draws, num))
    for start in range(0, draws, CHUNK):
        drawn = random.multinomial(total, counts / total, min(CHUNK, draws - start)).astype(float) @ rows
        with np.errstate(invalid="ignore"):
            found[start : start + len(drawn)] = drawn[:, :num] / drawn[:, num:]
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    value = np.bincount(categories, on.astype(float) - off, minlength=num) / sizes
    return [Change(float(d), float(a), float(b), int(n)) for d, a, b, n in zip(value, low, high, sizes, strict=True)]


def _distinct(
    off: NDArray[np.bool_], on: NDArray[np.bool_], categories: NDArray[np.int64], clusters: NDArray[np.int64], num: int
) -> tuple[Array, Array]:
    """Distinct rows (differences | sizes by category) of the clusters, and how many clusters have each."""
    names, index = np.unique(clusters, return_inverse=True)
    if len(names) == len(clusters):  # every record for itself: its category and difference say all
        keys, counts = np.unique(categories * 3 + (on.astype(np.int64) - off + 1), return_counts=True)
        rows = np.zeros((len(keys), 2 * num))
        rows[np.arange(len(keys)), keys // 3] = keys % 3 - 1
        rows[np.arange(len(keys)), num + keys // 3] = 1
        return rows, counts.astype(float)
    cell = index * num + categories
    length = len(names) * num
    change = np.bincount(cell, on.astype(float) - off, minlength=length).reshape(-1, num)
    held = np.bincount(cell, minlength=length).reshape(-1, num).astype(float)
    rows, counts = np.unique(np.c_[change, held], axis=0, return_counts=True)
    return rows, counts.astype(float)
