"""Tokens drawn from logits, and given tokens scored, in C++ over the numbers of `sampling`.

Suffixes name axes: B rows, V vocabulary.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spiritsafe.models.decoding import sampling
from spiritsafe.native import native

SOURCE = Path(__file__).parents[2] / "make" / "rollout" / "race.cpp"


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn: temperature 0 takes the likeliest, `top_p` < 1 the smallest nucleus."""

    temperature: float = 1.0
    top_p: float = 1.0


def draw(
    logits_BV: Tensor, seeds: Sequence[int], steps: Sequence[int], drawing: Drawing
) -> tuple[list[int], list[float]]:
    """A token for each row of float32 logits and its log-probability at temperature 1.

    Seeds are 64-bit; `steps` counts the tokens that each sequence has drawn before.
    """
    library = native(SOURCE, torch=True)
    if library is None:
        size = len(logits_BV)
        tokens_B = sampling.draw(logits_BV, seeds, steps, [drawing.temperature] * size, [drawing.top_p] * size)
        return tokens_B.tolist(), score(logits_BV, tokens_B.tolist())
    rows, vocab = logits_BV.shape
    tokens, logprobs = np.empty(rows, np.int64), np.empty(rows, np.float32)
    library.race_draw(
        ctypes.c_void_p(logits_BV.data_ptr()),
        ctypes.c_long(rows),
        ctypes.c_long(vocab),
        pointer(np.array(seeds, np.uint64)),
        pointer(np.array(steps, np.int64)),
        ctypes.c_double(drawing.temperature),
        ctypes.c_double(drawing.top_p),
        pointer(tokens),
        pointer(logprobs),
        torch.get_num_threads(),
    )
    return tokens.tolist(), logprobs.tolist()


def score(logits_BV: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probability of one given token for each row of float32 logits."""
    library = native(SOURCE, torch=True)
    if library is None:
        logprobs_BV = logits_BV.log_softmax(-1)
        picked: list[float] = logprobs_BV.gather(-1, torch.tensor(tokens)[:, None])[:, 0].tolist()
        return picked
    logprobs = np.empty(len(tokens), np.float32)
    library.race_score(
        ctypes.c_void_p(logits_BV.data_ptr()),
        ctypes.c_long(len(tokens)),
        ctypes.c_long(logits_BV.shape[1]),
        pointer(np.array(tokens, np.int64)),
        pointer(logprobs),
        torch.get_num_threads(),
    )
    return logprobs.tolist()


def pointer(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ctypes.c_void_p:
    """Where a contiguous array lies; the argument keeps it alive during a call."""
    found = ctypes.c_void_p(array.ctypes.data)
    found._array = array  # type: ignore[attr-defined]
    return found
