"""Logistic regression on sparse rows: fitted by L-BFGS, the offset not penalised, the same weights every time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def fitted(rows_NF: Any, labels_N: NDArray[np.bool_], weights_N: Array, *, cost: float, steps: int = 60) -> Array:
    """Weights (F + 1), the offset last, that minimise |w|^2 / 2 + cost * weighted log-loss, as near as `steps` come."""
    from scipy.optimize import minimize

    kind = rows_NF.dtype
    signs, pulls = np.where(labels_N, 1.0, -1.0), cost * weights_N

    def loss(w: Array) -> tuple[float, Array]:
        margins = signs * (rows_NF @ w[:-1].astype(kind) + w[-1])
        pull = -pulls * signs / (1 + np.exp(np.clip(margins, -500, 500)))
        value = w[:-1] @ w[:-1] / 2 + (pulls * np.logaddexp(0, -margins)).sum()
        return float(value), np.append(rows_NF.T @ pull.astype(kind) + w[:-1], pull.sum())

    options = {"maxiter": steps, "maxcor": 10}
    return np.asarray(minimize(loss, np.zeros(rows_NF.shape[1] + 1), jac=True, method="L-BFGS-B", options=options).x)
