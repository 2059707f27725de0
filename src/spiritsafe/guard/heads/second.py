"""The second stage: a linear head over a sentence encoder's vector, its score averaged with the first stage's.

    English           all-MiniLM-L6-v2
    everything else   multilingual-e5-small

The encoder reads a text's beginning (128 tokens, 300 characters); what lies beyond is the first stage's alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.models import encoder

Array = NDArray[np.float64]
MAX_TOKENS = 128


@dataclass(frozen=True)
class Second:
    """Fitted: weights and offset (384 + 1, H) for each encoder."""

    english: Array
    other: Array

    def scores(self, text: str, firsts_H: Array, *, is_english: bool) -> Array:
        """Scores (H) of a text as it is shown, given its scores in the first stage. Raises `MissingExtra`."""
        found = joined(
            firsts_H[None], vectors([text], is_english=is_english), self.english if is_english else self.other
        )
        return found[0]  # type: ignore[no-any-return]


def vectors(texts: Sequence[str], *, is_english: bool) -> Array:
    """Unit vectors (N, 384) by the encoder of the texts' language."""
    return encoder.english(texts, max_tokens=MAX_TOKENS) if is_english else encoder.multilingual(texts)


def joined(firsts_NH: Array, vectors_ND: Array, weights: Array) -> Array:
    """Scores (N, H): the mean of what both stages say."""
    found: Array = (firsts_NH + vectors_ND @ weights[:-1] + weights[-1]) / 2
    return found
