"""Draw tokens so that a sample does not depend on its batch.

Each sequence has a counter-based generator of its own (Philox 4x64-10; Salmon et al., SC 2011), keyed by
its seed; token t races the vocabulary with the t-th block of its exponentials: the token with the least
E_v / p_v wins with probability p_v (the Gumbel-max trick without logarithms). Float rounding of the logits
(about 1e-5 between batch shapes) changes a winner only where two runners are that close, about once in
100,000 tokens; inverting the distribution function instead was seen to change one draw in a few hundred,
since in the flat tail of a large vocabulary every rounding error crosses a boundary.

Suffixes name axes: B batch, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def exponentials(seed: int, step: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """`count` standard exponentials of the stream `seed` at token `step`; the same on every machine."""
    return np.random.Generator(np.random.Philox(key=seed, counter=step << 128)).standard_exponential(count)


def draw(
    logits_BV: Tensor,
    seeds: Sequence[int],
    steps: Sequence[int],
    temperatures: Sequence[float],
    top_ps: Sequence[float],
) -> Tensor:
    """One token per row, shape (B); temperature 0 takes the likeliest, `top_p` < 1 the smallest nucleus."""
    logits_BV = logits_BV.float()
    tokens_B = logits_BV.argmax(-1)
    heat_B = torch.tensor([t or 1.0 for t in temperatures])
    probs_BV = (logits_BV / heat_B[:, None]).softmax(-1)
    for row, (seed, step, temperature, top_p) in enumerate(zip(seeds, steps, temperatures, top_ps, strict=True)):
        if temperature > 0:
            probs_V = nucleus(probs_BV[row], top_p) if top_p < 1 else probs_BV[row]
            with np.errstate(divide="ignore"):
                race_V = exponentials(seed, step, len(probs_V)) / probs_V.numpy()
            tokens_B[row] = int(race_V.argmin())
    return tokens_B


def nucleus(probs_V: Tensor, top_p: float) -> Tensor:
    """Keep the likeliest tokens whose mass first reaches `top_p`; the rest get 0 (arXiv 1904.09751)."""
    ordered_V, index_V = probs_V.sort(descending=True, stable=True)
    before_V = ordered_V.cumsum(-1, dtype=torch.float64) - ordered_V
    kept_V = torch.where((before_V < top_p) | (before_V == 0), ordered_V, 0.0)
    return torch.zeros_like(probs_V).scatter_(0, index_V, kept_V)
