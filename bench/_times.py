"""Seconds that a piece of work takes for each of many texts."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Text = TypeVar("Text")


def times_s(work: Callable[[Text], object], texts: Sequence[Text]) -> np.ndarray:
    """Wall time of each call, one after the other."""
    found = np.zeros(len(texts))
    for index, text in enumerate(texts):
        started = time.perf_counter()
        work(text)
        found[index] = time.perf_counter() - started
    return found
