"""What a teacher says about the next token: dense (its whole distribution) or sparse (a few tokens and a rest).

Suffixes name axes: N positions, K stored tokens, E the teacher's hidden size, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DenseSignal:
    """The teacher's whole distribution, kept as hidden states and head: logits are projected tile by tile.

    Products beyond `cap` are bent towards it (see `models.logits`).
    """

    hidden_NE: Tensor
    head_VE: Tensor
    cap: float | None = None

    def rows(self, part: slice | Tensor) -> "DenseSignal":
        """The signal of some of the positions."""
        return DenseSignal(self.hidden_NE[part], self.head_VE, self.cap)


@dataclass(frozen=True)
class SparseSignal:
    """A few tokens of each position with the target's mass on them.

    `ids_NK` int64, -1 where a row is shorter; `probs_NK` float32, 0 there. `tail_N` is the mass on all
    other tokens together: above 0 where the head alone is stored, 0 where sampled tokens stand for the tail
    (their mass is an importance weight, so that the expected target is the teacher's distribution,
    arXiv 2503.16870).
    """

    ids_NK: Tensor
    probs_NK: Tensor
    tail_N: Tensor

    def rows(self, part: slice | Tensor) -> "SparseSignal":
        """The signal of some of the positions."""
        return SparseSignal(self.ids_NK[part], self.probs_NK[part], self.tail_N[part])


TeacherSignal = DenseSignal | SparseSignal


def joined(signals: list[SparseSignal]) -> SparseSignal:
    """Several positions' signals one after the other; shorter rows are filled up."""
    width = max(s.ids_NK.shape[1] for s in signals)

    def filled(x_NK: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(x_NK, (0, width - x_NK.shape[1]), value=value)

    return SparseSignal(
        torch.cat([filled(s.ids_NK, -1) for s in signals]),
        torch.cat([filled(s.probs_NK, 0.0) for s in signals]),
        torch.cat([s.tail_N for s in signals]),
    )
