"""What a student learns from: a method turns logits at the answers' tokens into a loss per token.

The loop does not know which method runs. Suffixes: N answer tokens of the batch, V vocabulary.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spiritsafe.make.batches import Batch
from spiritsafe.make.losses import sparse_forward_kl, text_loss
from spiritsafe.make.signals import Signals


class Method(Protocol):
    """One way to learn."""

    @property
    def name(self) -> str:
        """What the reports call it."""
        ...

    def loss(self, logits_NV: Tensor, batch: Batch) -> Tensor:
        """Loss of each answer token in nats, shape (N)."""
        ...


@dataclass(frozen=True)
class BlackBox:
    """Sequence-level distillation from text alone (Kim and Rush, arXiv 1606.07947; R1's students)."""

    name: str = "text"

    def loss(self, logits_NV: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy with the served tokens."""
        return text_loss(logits_NV, batch.targets_N)


@dataclass(frozen=True)
class WhiteBox:
    """Word-level distillation from cached top-k log-probabilities, forward KL (arXiv 1503.02531)."""

    signals: Signals
    name: str = "cached log-probabilities"

    def loss(self, logits_NV: Tensor, batch: Batch) -> Tensor:
        """Forward KL to the teacher's head and tail."""
        parts = [self.signals.of(i) for i in batch.items]
        return sparse_forward_kl(logits_NV, torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
