"""The second stage: a linear head over a sentence encoder's vector, its score averaged with the first stage's.

    English           all-MiniLM-L6-v2
    everything else   multilingual-e5-small

The encoder reads a short text whole, and every piece of one that has several, up to `MOST_READ` parts a text: those
that the first stage scores highest. What it did not read is the first stage's alone, and is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.models import encoder

Array = NDArray[np.float64]
MAX_TOKENS = 128
MOST_READ = 8  # parts of a text
WHOLE = 300  # characters that both encoders read to the end


@dataclass(frozen=True)
class Second:
    """Fitted: weights and offset (384 + 1, H) for each encoder."""

    english: Array
    other: Array

    def scores(self, texts: Sequence[str], firsts_NH: Array, *, is_english: bool) -> Array:
        """Scores (N, H) of texts as they are shown, given their scores in the first stage. Raises `MissingExtra`."""
        weights = self.english if is_english else self.other
        return joined(firsts_NH, vectors(texts, is_english=is_english), weights)


def vectors(texts: Sequence[str], *, is_english: bool) -> Array:
    """Unit vectors (N, 384) by the encoder of the texts' language."""
    return encoder.english(texts, max_tokens=MAX_TOKENS) if is_english else encoder.multilingual(texts)


def joined(firsts_NH: Array, vectors_ND: Array, weights: Array) -> Array:
    """Scores (N, H): the mean of what both stages say."""
    found: Array = (firsts_NH + vectors_ND @ weights[:-1] + weights[-1]) / 2
    return found
