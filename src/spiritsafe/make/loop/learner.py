"""One packed row through model and loss: the module whose forward pass is a step's unit of work.

Suffixes: N answer tokens of the row, D hidden, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spiritsafe.make.depth import layers_left, layers_of
from spiritsafe.make.head import head_loss
from spiritsafe.make.loop.diagnose import Figures, diagnose
from spiritsafe.make.loop.trunk import hidden_states, product_of
from spiritsafe.make.samples import Packed, Target
from spiritsafe.models.logits import LogitForm


class Learner(nn.Module):
    """A model that learns, whose logits are of the `form`.

    Its layers before `first` have run already where `states_TD` are given.
    """

    def __init__(self, model: Any, first: int, form: LogitForm) -> None:
        super().__init__()
        self.model, self._first, self._form = model, first, form

    def forward(
        self,
        row: Packed,
        targets: Sequence[Target],
        *,
        scale: float,
        states_TD: Tensor | None = None,
        look: bool = False,
    ) -> tuple[Tensor, Figures]:
        """`scale` times the weighted sum of the row's losses; with `look`, also what a glance at it shows."""
        if states_TD is None:
            hidden_ND = hidden_states(self.model, row)
        else:
            with layers_left(self.model, range(self._first, len(layers_of(self.model)))):
                hidden_ND = hidden_states(self.model, row, states_TD=states_TD)
        hidden_ND, head_VD = product_of(self.model, hidden_ND, self._form)
        cap = self._form.cap
        figures = diagnose(hidden_ND.detach(), head_VD.detach(), targets, cap=cap) if look else {}
        losses = [_loss(hidden_ND, head_VD, row, target, scale, cap) for target in targets]
        return torch.stack(losses).sum(), figures


def _loss(hidden_ND: Tensor, head_VD: Tensor, row: Packed, target: Target, scale: float, cap: float | None) -> Tensor:
    rows = slice(None) if target.rows is None else target.rows
    if not row.weights_N[rows].any():
        return 0 * (hidden_ND.sum() + head_VD.sum())  # every process must have the same gradients to exchange
    return head_loss(
        hidden_ND[rows],
        head_VD,
        row.tokens_N[rows],
        target.objective,
        signal=target.signal,
        weights_N=row.weights_N[rows],
        scale=scale * target.weight,
        cap=cap,
    ).total
