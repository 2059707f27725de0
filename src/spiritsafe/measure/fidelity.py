"""How close a model is to its teacher on held-out answers: KL, agreement, acceptance, bits per byte, calibration.

Full vocabularies are compared, token by token, on the teacher's own answers. Both models must share one
tokenizer; across tokenizers only bits per byte compare (not covered here). Acceptance is the chance that
speculative decoding keeps a token that the model proposes to the teacher: sum of min(p, q), 1 less the total
variation (arXiv 2211.17192). Calibration error: how far the probability of a model's likeliest token is from how
often the teacher says that token, in ten bins (ECE, arXiv 1706.04599).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spiritsafe.evidence import Estimate, clustered_mean, jackknife_values
from spiritsafe.models.decoding.scoring import Pair, answer_logprobs
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, Verdict

METHOD = "teacher's answers to held-out prompts, full vocabulary; bootstrap-t over prompts"

CLAIMS = {
    "kl to teacher": "differs from the teacher by {:.3f} nats a token",
    "top-1 agreement": "agrees with the teacher on {:.1%} of tokens",
    "bits per byte": "needs {:.2f} bits a byte",
    "acceptance": "proposes tokens of which the teacher would keep {:.1%}",
    "calibration error": "is off by {:.1%} in how sure it is of the next token",
}
BINS = 10
BINNED = "in ten bins of equal width; on few tokens it is overstated; jackknife over prompts"


@dataclass(frozen=True)
class Fidelity:
    """Sums over the tokens of each prompt's answer: KL in nats, agreeing tokens, bits, accepted tokens, tokens, bytes.

    `bins` (P, 10): in each bin of confidence, correct tokens less their summed confidence.
    """

    kl: tuple[float, ...]
    agree: tuple[float, ...]
    bits: tuple[float, ...]
    accepted: tuple[float, ...]
    tokens: tuple[int, ...]
    num_bytes: tuple[int, ...]
    bins: tuple[tuple[float, ...], ...]


def reference(teacher: LocalModel, exchanges: Sequence[Exchange]) -> list[Tensor]:
    """The teacher's log-probabilities (T, V) of each exchange's answer, float32: to be compared with many models."""
    with torch.inference_mode():
        return list(answer_logprobs(teacher.model, [teacher.pair(e) for e in exchanges], pad_id=teacher.pad_id))


def fidelity(theirs: Sequence[Tensor], model: LocalModel, exchanges: Sequence[Exchange]) -> Fidelity:
    """Compare `model` with its teacher's `reference` on the exchanges' answers."""
    pairs = [model.pair(e) for e in exchanges]
    with torch.inference_mode():
        return compare(theirs, answer_logprobs(model.model, pairs, pad_id=model.pad_id), pairs, exchanges)


def compare(
    theirs: Iterable[Tensor], ours: Iterable[Tensor], pairs: Sequence[Pair], exchanges: Sequence[Exchange]
) -> Fidelity:
    """Compare two models' log-probabilities (T, V) of the same answers, `pairs` in their common tokens."""
    kl: list[float] = []
    agree: list[float] = []
    bits: list[float] = []
    accepted: list[float] = []
    bins: list[tuple[float, ...]] = []
    for p_TV, q_TV, (_, answer) in zip(theirs, ours, pairs, strict=True):
        kl.append(_kl(p_TV, q_TV))
        agree.append(float((p_TV.argmax(-1) == q_TV.argmax(-1)).sum()))
        bits.append(-float(q_TV.gather(-1, torch.tensor(answer)[:, None]).sum()) / log(2))
        accepted.append(min(float(len(answer)), float(torch.minimum(p_TV, q_TV).exp().sum())))
        bins.append(_binned(q_TV, torch.tensor(answer)))
    tokens = tuple(len(answer) for _, answer in pairs)
    num_bytes = tuple(len(e.answer.encode()) for e in exchanges)
    return Fidelity(tuple(kl), tuple(agree), tuple(bits), tuple(accepted), tokens, num_bytes, tuple(bins))


def calibration(found: Fidelity) -> list[float]:
    """The expected calibration error, as jackknife values of the prompts: their mean is the error."""
    bins, tokens = np.asarray(found.bins), np.asarray(found.tokens, float)
    without = [_ece(bins.sum(0) - bins[i], tokens.sum() - tokens[i]) for i in range(len(tokens))]
    return jackknife_values(_ece(bins.sum(0), tokens.sum()), without)


def fidelity_verdicts(subject: str, found: Fidelity, *, seed: int, resamples: int) -> list[Verdict]:
    """KL, agreement, bits per byte, acceptance and calibration error of one model, each with its interval."""
    parts = {
        "kl to teacher": ("nats/token", found.kl, found.tokens, inf),
        "top-1 agreement": ("share of tokens", found.agree, found.tokens, 1.0),
        "bits per byte": ("bits/byte", found.bits, found.num_bytes, inf),
        "acceptance": ("share of tokens", found.accepted, found.tokens, 1.0),
        "calibration error": ("share of tokens", calibration(found), [1] * len(found.tokens), 1.0),
    }
    verdicts = []
    for name, (unit, sums, weights, most) in parts.items():
        estimate = clustered_mean(sums, weights, seed=seed, resamples=resamples, bounds=(0.0, most))
        claim = f"On held-out answers the {subject} {CLAIMS[name].format(estimate.value)}."
        verdicts.append(_verdict(name, subject, claim, unit, estimate, seed))
    verdicts[-1] = verdicts[-1].model_copy(update={"method": f"teacher's answers to held-out prompts, {BINNED}"})
    return verdicts


def change_verdict(
    subject: str, before: str, after: Fidelity, start: Fidelity, *, seed: int, resamples: int
) -> Verdict:
    """Paired difference in KL on the same prompts: below 0 where `subject` is closer to the teacher."""
    sums = [a - b for a, b in zip(after.kl, start.kl, strict=True)]
    estimate = clustered_mean(sums, after.tokens, seed=seed, resamples=resamples)
    closer = "closer to" if estimate.high < 0 else "farther from" if estimate.low > 0 else "not provably closer to"
    claim = f"The {subject} is {closer} the teacher than the {before}."
    verdict = _verdict("kl change", f"{subject} vs {before}", claim, "nats/token", estimate, seed)
    return verdict.model_copy(update={"method": "paired on the same prompts; " + METHOD})


def _verdict(name: str, subject: str, claim: str, unit: str, estimate: Estimate, seed: int) -> Verdict:
    return Verdict(
        room="measure",
        name=name,
        subject=subject,
        claim=claim,
        value=estimate.value,
        unit=unit,
        interval=(estimate.low, estimate.high),
        n=estimate.n,
        seed=seed,
        method=METHOD,
        assumptions=("prompts are independent draws of the teacher's own prompt distribution",),
        limits=(
            "says nothing about prompts unlike the teacher's own",
            "where a few prompts dominate (heavy tails), the interval covers about 91 % instead of 95 %",
        ),
    )


def _binned(q_TV: Tensor, answer_T: Tensor) -> tuple[float, ...]:
    sure_T, said_T = q_TV.max(-1)
    place_T = (sure_T.exp() * BINS).long().clamp(max=BINS - 1)
    gap_T = (said_T == answer_T).double() - sure_T.exp().double()
    found: list[float] = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place_T, gap_T).tolist()
    return tuple(found)


def _ece(gaps: NDArray[np.float64], tokens: float) -> float:
    return float(np.abs(gaps).sum() / tokens) if tokens else 0.0


def _kl(p_TV: Tensor, q_TV: Tensor) -> float:
    return float((p_TV.exp() * (p_TV - q_TV)).sum())
