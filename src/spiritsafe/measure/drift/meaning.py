"""Hallucination without a reference: semantic entropy (arXiv 2302.09664), self-consistency (SelfCheckGPT, 2303.08896).

Several answers are sampled for one prompt. Answers that mean the same are one meaning; the entropy over meanings is
0 where all agree and log k where all differ. Inconsistency: how little each sentence of an answer is like what the
other answers say. Likeness is the cosine of the packaged sentence encoder, in place of the papers' entailment model:
it hears topics better than contradictions, and equal sentences with other numbers are nearly alike to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from spiritsafe.measure.drift.texts import grams
from spiritsafe.measure.refusal import encoder
from spiritsafe.measure.refusal.features import SENTENCE

Array = NDArray[np.float64]
WIDTH = 4096


@dataclass(frozen=True)
class Likeness:
    """How texts become unit vectors (N, D), and the cosine from which on two answers mean the same."""

    name: str
    embed: Callable[[Sequence[str]], Array]
    same: float


def likeness() -> Likeness:
    """The packaged encoder; without it, word n-grams, which hear wording alone: the name says which."""
    if encoder.is_installed():
        return Likeness("all-MiniLM-L6-v2, int8, cosine from 0.8 on", encoder.embed, 0.8)
    return Likeness("word n-grams, cosine from 0.5 on: the sentence encoder is not installed", by_words, 0.5)


def by_words(texts: Sequence[str]) -> Array:
    """Unit vectors (N, 4096) of hashed words and word pairs; an empty text has a direction of its own."""
    found = np.zeros((len(texts), WIDTH))
    for row, text in zip(found, texts, strict=True):
        for gram in [*grams(text, 1), *grams(text, 2)] or [("",)]:
            row[crc32(" ".join(gram).encode()) % WIDTH] += 1
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), float)


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
    return float(-sum(c / len(vectors_KD) * log(c / len(vectors_KD)) for c in counts))


def entropies(answers: Sequence[Sequence[str]], by: Likeness) -> list[float]:
    """The semantic entropy of each prompt's answers; `answers` (prompts, samples)."""
    return [semantic_entropy(by.embed(texts), by.same) for texts in answers]


def inconsistencies(answers: Sequence[Sequence[str]], by: Likeness) -> list[float]:
    """1 less the likeness of each sentence to the nearest one of another answer, averaged; for each prompt, 0 to 1.

    Each answer is checked once against all others. A prompt needs two answers at least.
    """
    found = []
    for texts in answers:
        parts = [[s for s in SENTENCE.split(text.strip()) if s] or [""] for text in texts]
        vectors = by.embed([s for part in parts for s in part])
        owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        cosines = vectors @ vectors.T
        near = [
            [cosines[owner == a][:, owner == b].max(1) for b in range(len(parts)) if b != a] for a in range(len(parts))
        ]
        found.append(float(np.mean([np.clip(1 - np.mean(each), 0, 1) for each in near])))
    return found
