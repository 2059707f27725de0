"""The twin-sample test: did a suspect learn from the answers that were served?

For each logged answer, `m` twins are drawn from the same model with the same settings. If the suspect's
training did not depend on which of the m+1 was served, all are exchangeable, whatever else it was trained
on; so the rank of the served one under any score that treats them alike is uniform. The p-value is exact:
the null distribution of the rank sum is computed by convolution, not simulated, so it has no floor.

Equal answers share their mid-rank and stay in. Dropping twins that equal the served answer would not be
symmetric: in the pool {A, A, A, B} the frequent answer would be ranked against fewer rivals only when it
is the served one, and a suspect that merely prefers frequent answers would be accused.

Arrays: (n, m + 1) over prompts and candidates; column 0 is the served answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.evidence import betting_e_process

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TwinTest:
    """Mean rank `mean_u` of the served answers (1/2 under the null, 1: always the favourite), its exact
    one-sided p-value, z for comparison, the e-value (final wealth of a bet, prompt by prompt in the log's
    order) and the anytime-valid p-value (1 / largest wealth on the way: valid wherever one stops).

    `u` holds each prompt's rank in [0, 1]; `beta` the weight of the teacher's likelihood.
    """

    n: int
    m: int
    mean_u: float
    z: float
    p_value: float
    e_value: float
    anytime_p: float
    beta: float
    u: tuple[float, ...]


def twin_test(suspect: Array, teacher: Array) -> TwinTest:
    """Test from mean log-likelihoods per token under the suspect and the teacher, both (n, m + 1), in nats.

    Raises `ValueError` where the shapes differ or there is no twin.
    """
    if suspect.shape != teacher.shape or suspect.ndim != 2 or suspect.shape[1] < 2 or not len(suspect):
        raise ValueError(f"need two equal (n, m + 1) arrays with m >= 1, got {suspect.shape} and {teacher.shape}")
    beta = covariate_weight(suspect, teacher)
    ranks = doubled_ranks(suspect - beta * teacher)
    m = suspect.shape[1] - 1
    u = ranks / (2 * m)
    spread = float(np.sqrt(u.var(1).sum()))
    z = float((u[:, 0] - 0.5).sum() / spread) if spread else 0.0
    served = tuple(u[:, 0].tolist())
    wealth = betting_e_process(served)
    return TwinTest(
        n=len(u),
        m=m,
        mean_u=float(u[:, 0].mean()),
        z=z,
        p_value=exact_p(ranks),
        e_value=float(wealth[-1]),
        anytime_p=float(min(1.0, 1 / wealth.max())),
        beta=beta,
        u=served,
    )


def covariate_weight(suspect: Array, teacher: Array) -> float:
    """Least-squares slope of the suspect's on the teacher's log-likelihood within prompts, over all candidates.

    Served and twins enter alike, so the scores it makes stay exchangeable.
    """
    x = teacher - teacher.mean(1, keepdims=True)
    y = suspect - suspect.mean(1, keepdims=True)
    total = float((x * x).sum())
    return float((x * y).sum() / total) if total > 0 else 0.0


def doubled_ranks(scores: Array) -> NDArray[np.int64]:
    """Twice the number of other candidates that each beats, ties counting half: integers 0 to 2m, (n, m + 1).

    Scores are compared at 1e-9. Equal answers must come with equal scores: see `audit._tied`.
    """
    rounded = np.round(scores, 9)
    higher = (rounded[:, :, None] > rounded[:, None, :]).sum(2)
    equal = (rounded[:, :, None] == rounded[:, None, :]).sum(2) - 1
    return np.asarray(2 * higher + equal, dtype=np.int64)


def exact_p(ranks: NDArray[np.int64]) -> float:
    """P(rank sum >= observed) when each prompt's served index is uniform over its candidates.

    Anything below 1e-300, where floats end, is given as 1e-300.
    """
    candidates = ranks.shape[1]
    distribution = np.ones(1)
    for row in ranks:
        step = np.bincount(row, minlength=2 * candidates - 1) / candidates
        distribution = np.convolve(distribution, step)
    return float(min(1.0, max(1e-300, distribution[int(ranks[:, 0].sum()) :].sum())))


def power(
    u: Sequence[float], m: int, sizes: Sequence[int], *, alpha: float, seed: int, resamples: int = 200
) -> list[dict[str, float]]:
    """What the test would say with fewer logged answers: random subsets of the observed ranks.

    Gives median, 10 % and 90 % quantile of p and the share with p <= alpha, for each size up to len(u).
    Ties are taken as the untied null, which is slightly conservative.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    points: list[dict[str, float]] = []
    for size in [s for s in sizes if s <= len(u)]:
        null = np.ones(1)
        for _ in range(size):
            null = np.convolve(null, _untied(m))
        survival = np.cumsum(null[::-1])[::-1]
        picks = [generator.choice(len(u), size, replace=False) for _ in range(resamples)]
        sums = np.array([round(2 * m * float(np.asarray(u)[pick].sum())) for pick in picks])
        p = np.minimum(1.0, survival[sums])
        low, median, high = np.quantile(p, [0.1, 0.5, 0.9])
        share = float((p <= alpha).mean())
        point = {"num_logged": float(size), "median_p": median, "low_p": low, "high_p": high, "share_rejected": share}
        points.append({name: float(value) for name, value in point.items()})
    return points


def _untied(m: int) -> Array:
    step = np.zeros(2 * m + 1)
    step[::2] = 1 / (m + 1)
    return step
