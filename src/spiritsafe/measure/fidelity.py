"""How close a model is to its teacher on held-out answers: KL, top-1 agreement, bits per byte.

Full vocabularies are compared, token by token, on the teacher's own answers. Both models must share one
tokenizer; across tokenizers only bits per byte compare (not covered here).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log

import torch
from torch import Tensor

from spiritsafe.evidence import Estimate, clustered_mean
from spiritsafe.models.local import LocalModel
from spiritsafe.models.scoring import Pair, answer_logprobs
from spiritsafe.record import Exchange, Verdict

METHOD = "teacher's answers to held-out prompts, full vocabulary; bootstrap-t over prompts"

CLAIMS = {
    "kl to teacher": "differs from the teacher by {:.3f} nats a token",
    "top-1 agreement": "agrees with the teacher on {:.1%} of tokens",
    "bits per byte": "needs {:.2f} bits a byte",
}


@dataclass(frozen=True)
class Fidelity:
    """Sums over the tokens of each prompt's answer: KL in nats, agreeing tokens, bits, tokens, bytes."""

    kl: tuple[float, ...]
    agree: tuple[float, ...]
    bits: tuple[float, ...]
    tokens: tuple[int, ...]
    num_bytes: tuple[int, ...]


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
    for p_TV, q_TV, (_, answer) in zip(theirs, ours, pairs, strict=True):
        kl.append(_kl(p_TV, q_TV))
        agree.append(float((p_TV.argmax(-1) == q_TV.argmax(-1)).sum()))
        bits.append(-float(q_TV.gather(-1, torch.tensor(answer)[:, None]).sum()) / log(2))
    tokens = tuple(len(answer) for _, answer in pairs)
    return Fidelity(tuple(kl), tuple(agree), tuple(bits), tokens, tuple(len(e.answer.encode()) for e in exchanges))


def fidelity_verdicts(subject: str, found: Fidelity, *, seed: int, resamples: int) -> list[Verdict]:
    """KL, agreement and bits per byte of one model, each with its interval."""
    parts = {
        "kl to teacher": ("nats/token", found.kl, found.tokens, inf),
        "top-1 agreement": ("share of tokens", found.agree, found.tokens, 1.0),
        "bits per byte": ("bits/byte", found.bits, found.num_bytes, inf),
    }
    verdicts = []
    for name, (unit, sums, weights, most) in parts.items():
        estimate = clustered_mean(sums, weights, seed=seed, resamples=resamples, bounds=(0.0, most))
        claim = f"On held-out answers the {subject} {CLAIMS[name].format(estimate.value)}."
        verdicts.append(_verdict(name, subject, claim, unit, estimate, seed))
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


def _kl(p_TV: Tensor, q_TV: Tensor) -> float:
    return float((p_TV.exp() * (p_TV - q_TV)).sum())
