"""The second stage: linear heads over a sentence encoder's vector, random cosines of it, and the first stage's scores.

    English           all-MiniLM-L6-v2; cosines after Rahimi and Recht 2007
    everything else   multilingual-e5-small, its vectors less the mean harmless one of English or of the rest: what
                      is left does not tell the language, so that English labels serve German texts

The encoder reads a text's beginning (128 tokens, 300 characters); what lies beyond is the first stage's alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.models import encoder

Array = NDArray[np.float64]
MAX_TOKENS, COSINES, WIDTH, COSINE_SCALE, FIRST_SCALE, CENTRED_SCALE = 128, 512, 2.5, 1.0, 0.1, 1.0


@dataclass(frozen=True)
class Second:
    """Fitted: weights (F + 1, H) for each encoder, random waves (384, C) and phases (C), mean vectors (2, 384)."""

    english: Array
    other: Array
    waves: Array
    phases: Array
    means: Array

    def scores(self, text: str, firsts_H: Array, *, is_english: bool) -> Array:
        """Scores (H) of a text as it is shown, given its scores in the first stage. Raises `MissingExtra`."""
        [vector] = vectors([text], is_english=is_english)
        if is_english:
            seen = english_features(vector[None], firsts_H[None], self.waves, self.phases)
            return (seen @ self.english[:-1] + self.english[-1])[0]  # type: ignore[no-any-return]
        seen = other_features(vector[None], firsts_H[None], self.means[1:])
        return (seen @ self.other[:-1] + self.other[-1])[0]  # type: ignore[no-any-return]


def vectors(texts: Sequence[str], *, is_english: bool) -> Array:
    """Unit vectors (N, 384) by the encoder of the texts' language."""
    return encoder.english(texts, max_tokens=MAX_TOKENS) if is_english else encoder.multilingual(texts)


def draw_waves(seed: int) -> tuple[Array, Array]:
    """Random directions and phases, in half precision as they are shipped."""
    draws = np.random.default_rng(seed)
    waves, phases = draws.normal(size=(encoder.WIDTH, COSINES)), draws.uniform(0, 2 * np.pi, COSINES)
    return waves.astype(np.float16).astype(float), phases.astype(np.float16).astype(float)


def english_features(vectors_ND: Array, firsts_NH: Array, waves: Array, phases: Array) -> Array:
    """What the English heads see, (N, 384 + COSINES + H)."""
    cosines = COSINE_SCALE * np.sqrt(2 / len(phases)) * np.cos(WIDTH * vectors_ND @ waves + phases)
    return np.hstack([vectors_ND, cosines, _bounded(firsts_NH)])


def other_features(vectors_ND: Array, firsts_NH: Array, mean: Array) -> Array:
    """What the other heads see, (N, 384 + H); `mean` (1 or N, 384) is of harmless texts in the language."""
    return np.hstack([CENTRED_SCALE * (vectors_ND - mean), _bounded(firsts_NH)])


def _bounded(firsts_NH: Array) -> Array:
    return FIRST_SCALE * np.clip(firsts_NH, -2, 2)
