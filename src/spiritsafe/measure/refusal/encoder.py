"""The English sentence encoder as measurements of meaning read with it: the first 48 tokens of a text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spiritsafe.models.encoder import english

MAX_TOKENS = 48


def embed(texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (N, 384): the mean over the states of each text's first 48 tokens."""
    return english(texts, max_tokens=MAX_TOKENS)
