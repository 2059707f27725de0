"""A linear classifier on sparse rows by dual coordinate descent (Hsieh et al., ICML 2008): C++, or numpy, alike.

It minimises |w|^2 / 2 + cost * sum of weight * max(0, 1 - sign * score)^2, the offset being one more weight. Rows are
taken in a drawn order, the same in every run.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.native import native

Array = NDArray[np.float64]
PASSES = 25


def separated(
    rows_NF: Any, labels_N: NDArray[np.bool_], weights_N: Array, *, cost: float, passes: int = PASSES
) -> Array:
    """Weights (F + 1), the offset last; a row's score is its product with them, above 0 where it is like the labelled.

    Weights of rows must be above 0.
    """
    num, width = rows_NF.shape
    values, columns = rows_NF.data.astype(np.float32), rows_NF.indices.astype(np.int32)
    starts, signs = rows_NF.indptr.astype(np.int64), np.where(labels_N, 1.0, -1.0)
    slack, norms = 0.5 / (cost * weights_N), 1 + np.asarray(rows_NF.multiply(rows_NF).sum(1), float).ravel()
    alpha, weights = np.zeros(num), np.zeros(width + 1)
    step, draws = _pass(), np.random.default_rng(0)
    for _ in range(passes):
        step(values, columns, starts, draws.permutation(num), num, signs, slack, norms, alpha, weights, width)
    return weights


def _plain(
    values: NDArray[np.float32], columns: NDArray[np.int32], starts: NDArray[np.int64], order: NDArray[np.int64],
    rows: int, signs: Array, slack: Array, norms: Array, alpha: Array, weights: Array, offset: int,
) -> None:  # fmt: skip
    for i in order[:rows]:
        own = slice(starts[i], starts[i + 1])
        margin = weights[offset] + values[own] @ weights[columns[own]]
        pull = signs[i] * margin - 1 + slack[i] * alpha[i]
        step = max(alpha[i] - pull / (norms[i] + slack[i]), 0.0) - alpha[i]
        alpha[i] += step
        weights[columns[own]] += step * signs[i] * values[own]
        weights[offset] += step * signs[i]


@cache
def _pass() -> Any:
    library = native(Path(__file__).with_name("dual.cpp"))
    if library is None:
        return _plain
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    library.dual_pass.argtypes = [*[pointer] * 4, number, *[pointer] * 5, number]
    library.dual_pass.restype = None
    return lambda *parts: library.dual_pass(*(p.ctypes.data if isinstance(p, np.ndarray) else p for p in parts))
