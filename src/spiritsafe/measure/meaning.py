"""Hallucination without a reference, from several answers sampled for one prompt.

Semantic entropy (Farquhar et al., Nature 630, 2024; Kuhn et al., arXiv 2302.09664): answers that mean the same are one
meaning; the entropy over meanings is 0 where all agree and log K where all K differ. Inconsistency (SelfCheckGPT, arXiv
2303.08896): how little each sentence of an answer is like what the other answers say.

Likeness is the cosine of the packaged sentence encoder, in place of the papers' entailment model. `UNSURE` and the
encoder's own limits are what neither can show; every claim from them states both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import MissingExtra
from spiritsafe.measure.refusal import encoder
from spiritsafe.measure.refusal.features import SENTENCE
from spiritsafe.models.encoder import missing

Array = NDArray[np.float64]
UNSURE = (
    "a model that is unsure is not thereby wrong, and one that always errs alike looks sure: consistent falsehoods are "
    "not seen"
)
HEARD = (
    f"meanings are those that a small English sentence encoder hears in the first {encoder.MAX_TOKENS} tokens of an "
    "answer or sentence: topics better than contradictions, and hardly other numbers or names"
)


@dataclass(frozen=True)
class Likeness:
    """How texts become unit vectors (N, D), and the cosine from which on two answers mean the same."""

    name: str
    embed: Callable[[Sequence[str]], Array]
    same: float
    limit: str


def likeness() -> Likeness:
    """The sentence encoder; its weights are fetched when it reads first. Raises `MissingExtra`."""
    if name := missing():
        raise MissingExtra(name, "guard")
    return Likeness("all-MiniLM-L6-v2, int8, cosine from 0.8 on", encoder.embed, 0.8, HEARD)


def meanings(vectors_KD: Array, same: float) -> list[int]:
    """Which meaning each answer has: that of the first earlier answer that begins a meaning and is alike."""
    firsts: list[int] = []
    found = []
    for k, vector in enumerate(vectors_KD):
        near = next((i for i, first in enumerate(firsts) if vectors_KD[first] @ vector >= same - 1e-9), None)
        if near is None:
            near = len(firsts)
            firsts.append(k)
        found.append(near)
    return found


def semantic_entropy(vectors_KD: Array, same: float) -> float:
    """Entropy in nats over the meanings of K sampled answers: 0 to log K (the discrete estimator of 2302.09664)."""
    counts = np.bincount(meanings(vectors_KD, same))
    return float(sum(c / len(vectors_KD) * log(len(vectors_KD) / c) for c in counts))


def entropy(answers: Sequence[str], by: Likeness) -> float:
    """The semantic entropy of one prompt's answers, in nats."""
    return semantic_entropy(by.embed(answers), by.same)


def inconsistency(answers: Sequence[str], by: Likeness) -> float:
    """1 less the likeness of each sentence to the nearest one of another answer, averaged: 0 to 1.

    Each answer is checked once against all others. Needs two answers at least.
    """
    parts = [[s for s in SENTENCE.split(text.strip()) if s] or [""] for text in answers]
    vectors = by.embed([s for part in parts for s in part])
    owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    cosines = vectors @ vectors.T
    near = [[cosines[owner == a][:, owner == b].max(1) for b in range(len(parts)) if b != a] for a in range(len(parts))]
    return float(np.mean([np.clip(1 - np.mean(each), 0, 1) for each in near]))
