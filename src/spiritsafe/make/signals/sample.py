"""What of a teacher's distribution is stored: its head, or a head and tokens sampled for the tail.

Suffixes: T tokens, V vocabulary, K entries.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spiritsafe.make.signals.coder import MOST, SAMPLE, Rows
from spiritsafe.make.signals.quantise import Precision


@dataclass(frozen=True)
class Keep:
    """`num` entries a token. `head`: the likeliest ones and the tail's mass; `unbiased`: samples stand for the tail."""

    mode: Literal["head", "unbiased"] = "head"
    num: int = 50
    precision: Precision = field(default_factory=Precision)

    def __post_init__(self) -> None:
        if not 1 <= self.num <= MOST:
            raise ValueError(f"num is {self.num}, must be 1 to {MOST}")


@dataclass(frozen=True)
class Kept:
    """Entries before quantisation: ids, log-probabilities, which are samples, and the log-mass of the tail."""

    ids_TK: Tensor
    logprobs_TK: Tensor
    sampled_TK: Tensor
    tails_T: Tensor


def choose(logprobs_TV: Tensor, keep: Keep, *, seed: int = 0) -> Kept:
    """The entries that `keep` asks for."""
    num = min(keep.num, logprobs_TV.shape[1])
    top = logprobs_TV.topk(num)
    if keep.mode == "head":
        rest_T = (1 - top.values.double().exp().sum(-1)).clamp_min(1e-30)
        return Kept(top.indices, top.values, torch.zeros_like(top.indices, dtype=torch.bool), rest_T.log())
    return _sampled(logprobs_TV, top.values, top.indices, seed)


def rows_of(kept: Kept, tokens: Tensor, precision: Precision) -> Rows:
    """The entries, quantised."""
    levels_TK = np.where(kept.sampled_TK, np.uint8(SAMPLE), precision.levels(kept.logprobs_TK.float().numpy()))
    num, width = levels_TK.shape
    return Rows(
        np.full(num, width, np.int32),
        kept.ids_TK.numpy().astype(np.int32),
        levels_TK.astype(np.uint8),
        precision.levels(kept.tails_T.float().numpy()),
        tokens.numpy().astype(np.int32),
    )


def _sampled(logprobs_TV: Tensor, top_TK: Tensor, ids_TK: Tensor, seed: int) -> Kept:
    """Threshold sampling: tokens above a bound c are kept exactly, each other one with probability p / c, weighing c.

    Its expected weight is p, whatever p is, so the expected target is the teacher's distribution: the sampled
    cross-entropy of arXiv 2503.16870 without multiplicities. The draw is systematic (one offset, steps of c
    along the tail), so the number drawn and the total mass are the same in every draw, which leaves less variance.
    """
    num, top = top_TK.shape[1], top_TK.double().exp()
    tail_TV = logprobs_TV.double().exp().scatter_(1, ids_TK, 0.0)
    # What is left from each entry on, summed from the small end: 1 less the head would be rounding at a peak.
    left_TK = top.flip(-1).cumsum(-1).flip(-1) + tail_TV.sum(-1, keepdim=True)
    fits = top <= left_TK / torch.arange(num, 0, -1) * (1 - 1e-9)
    fits[:, -1] = True
    head_T = fits.int().argmax(-1)
    in_head = torch.arange(num) < head_T[:, None]
    ends_TV = tail_TV.scatter_(1, ids_TK, torch.where(in_head, 0.0, top)).cumsum_(-1)
    offset_T = torch.rand(len(top), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mass_T = ends_TV[:, -1]
    step_T = mass_T[:, None] / (num - head_T[:, None])
    marks_TK = (torch.arange(num) - head_T[:, None] + offset_T).clamp_min(0) * step_T
    drawn_TK = torch.searchsorted(ends_TV, marks_TK, right=True).clamp_max(tail_TV.shape[1] - 1)
    drawn_TK = torch.where(mass_T[:, None] > 0, drawn_TK, ids_TK)  # nothing is left: any tokens, each once
    tails_T = mass_T.clamp(1e-30, 1)
    return Kept(torch.where(in_head, ids_TK, drawn_TK), top_TK, ~in_head, tails_T.log())
