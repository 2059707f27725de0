"""Seconds that a piece of work takes for each of many texts."""

import time
from collections.abc import Callable, Sequence

import numpy as np


def times_s(work: Callable[[str], object], texts: Sequence[str]) -> np.ndarray:
    """Wall time of each call, one after the other."""
    found = np.zeros(len(texts))
    for index, text in enumerate(texts):
        started = time.perf_counter()
        work(text)
        found[index] = time.perf_counter() - started
    return found
