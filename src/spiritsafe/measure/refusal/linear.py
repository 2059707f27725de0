"""Logistic regression on sparse rows: fitted by L-BFGS, the offset not penalised, the same weights every time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.measure.refusal.features import BUCKETS, CUE_SCALE, cues, hashed

Array = NDArray[np.float64]


def rows(texts: Sequence[str]) -> Any:
    """The n-grams and scaled cues of texts as a sparse matrix (N, BUCKETS + cues)."""
    from scipy.sparse import csr_matrix, hstack

    found = [hashed(text) for text in texts]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in found)])
    values = (np.concatenate([w for _, w in found]), np.concatenate([b for b, _ in found]), ends)
    return hstack(
        [csr_matrix(values, shape=(len(texts), BUCKETS)), csr_matrix(CUE_SCALE * np.array([cues(t) for t in texts]))]
    )


def fitted(rows_NF: Any, labels_N: NDArray[np.bool_], *, cost: float, weights_N: Array | None = None) -> Array:
    """Weights (F + 1), the offset last, that minimise |w|^2 / 2 + cost * weighted log-loss."""
    from scipy.optimize import minimize

    x, signs = rows_NF.tocsr(), np.where(labels_N, 1.0, -1.0)
    weights = cost * (np.ones(len(signs)) if weights_N is None else weights_N)

    def loss(w: Array) -> tuple[float, Array]:
        margins = signs * (x @ w[:-1] + w[-1])
        pull = -weights * signs / (1 + np.exp(np.clip(margins, -500, 500)))
        value = w[:-1] @ w[:-1] / 2 + (weights * np.logaddexp(0, -margins)).sum()
        return float(value), np.append(x.T @ pull + w[:-1], pull.sum())

    options = {"maxiter": 500, "maxcor": 20}
    return np.asarray(minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options=options).x)
