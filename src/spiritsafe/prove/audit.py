"""Audit accounts' logs against models with the twin-sample test; Holm over accounts for each model."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.evidence import holm, wilson
from spiritsafe.models.base import Model
from spiritsafe.prove.twin_test import TwinTest, twin_test
from spiritsafe.record import Exchange, Verdict

Array = NDArray[np.float64]

NULL = "The model's training did not depend on which of the equally likely answers this account was served."
ASSUMPTIONS = (
    "the answers were sampled at a temperature above 0, and every setting was logged",
    "twins come from the same build of the model with the same settings, and were never published",
    "the served text was not published elsewhere: otherwise somebody learned from it, not this account",
)
LIMITS = (
    "a rejection does not show who trained the model, with what purpose, or that terms were broken",
    "no rejection is no acquittal: few answers, few epochs, paraphrase or later training hide the trace",
    "it needs the suspect's log-likelihoods, and the owner's log and model",
)


@dataclass(frozen=True)
class Pool:
    """One account's audited log: each served exchange followed by its twins, row by row."""

    account: str
    served: tuple[Exchange, ...]
    twins: tuple[Exchange, ...]

    def rows(self) -> list[list[Exchange]]:
        """n rows of 1 + m exchanges, the served one first."""
        m = len(self.twins) // len(self.served)
        return [[e, *self.twins[i * m : (i + 1) * m]] for i, e in enumerate(self.served)]


def likelihoods(model: Model, pool: Pool) -> Array:
    """Mean log-likelihood per token of every candidate under a model, (n, m + 1), nats."""
    rows = pool.rows()
    scores = model.score([e for row in rows for e in row])
    means = [sum(s.logprobs) / len(s.logprobs) for s in scores]
    return _tied(np.asarray(means, float).reshape(len(rows), -1), rows)


def logged_likelihoods(pool: Pool) -> Array:
    """The same under the model that served, from the log-probabilities stored with each answer."""
    rows = pool.rows()
    means = [[sum(e.logprobs or ()) / len(e.logprobs or (0,)) for e in row] for row in rows]
    return _tied(np.asarray(means, float), rows)


def audit(
    tests: Mapping[tuple[str, str], TwinTest], *, learned: Mapping[tuple[str, str], bool], alpha: float, seed: int
) -> list[Verdict]:
    """One verdict for each (account, model), Holm-corrected over the accounts of each model.

    `learned` holds the run's own ground truth where it is known.
    """
    verdicts: list[Verdict] = []
    for model in dict.fromkeys(model for _, model in tests):
        accounts = [account for account, other in tests if other == model]
        adjusted = holm([tests[account, model].p_value for account in accounts])
        for account, p in zip(accounts, adjusted, strict=True):
            truth = learned.get((account, model))
            verdicts.append(_verdict(account, model, tests[account, model], p, truth, alpha=alpha, seed=seed))
    return verdicts


def examine(pool: Pool, suspect: Array) -> TwinTest:
    """The twin-sample test of one account's log against one model's log-likelihoods."""
    return twin_test(suspect, logged_likelihoods(pool))


def _tied(values: Array, rows: list[list[Exchange]]) -> Array:
    """Give equal answers to a prompt one value, their mean.

    They were computed in different batches, and rounding must not decide between a served answer and
    its equal: all served ones shared other batches than their twins.
    """
    tied = values.copy()
    for place, row in enumerate(rows):
        for tokens in {e.token_ids for e in row}:
            same = [j for j, e in enumerate(row) if e.token_ids == tokens]
            tied[place, same] = values[place, same].mean()
    return tied


def _verdict(
    account: str, model: str, test: TwinTest, adjusted: float, truth: bool | None, *, alpha: float, seed: int
) -> Verdict:
    rejected = adjusted <= alpha
    said = "learned from the answers served to" if rejected else "shows no trace of the answers served to"
    mean = wilson(sum(test.u), test.n)
    return Verdict(
        room="prove",
        name="twin-sample test",
        subject=f"{account} x {model}",
        claim=f"The {model} {said} {account}.",
        value=test.mean_u,
        unit="mean rank of the served answer",
        interval=(mean.low, mean.high),
        n=test.n,
        seed=seed,
        method=(
            f"twin-sample test, {test.m} twins an answer, exact p by convolution, Holm over accounts, "
            f"alpha {alpha:g}; the interval of the mean rank is Wilson's (conservative). "
            f"Null: {NULL}"
        ),
        kind="E",
        assumptions=ASSUMPTIONS,
        limits=LIMITS,
        p_value=test.p_value,
        p_adjusted=adjusted,
        e_value=test.e_value,
        rejected=rejected,
        expected="" if truth is None else ("rejects" if truth else "does not reject"),
        holds=None if truth is None else rejected == truth,
        detail={
            "account": account,
            "model": model,
            "z": test.z,
            "mean_u": test.mean_u,
            "anytime_p": test.anytime_p,
            "beta": test.beta,
            "m": test.m,
        },
    )
