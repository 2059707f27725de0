"""The layers that are not trained, below a depth-pruned student's cut: run without gradient, and once a sample.

Frozen layers give the same states in every epoch. A sample's states are computed in the row of the step that
sees it first, in a continued run too: its weights end as the same bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spiritsafe.make.depth import layers_left
from spiritsafe.make.loop.trunk import trunk_states
from spiritsafe.make.packing import on_device, pack
from spiritsafe.make.samples import Method, Packed, Sample

MOST_BYTES = 2 << 30


class Frozen:
    """The first `num` layers of a model; with `keep`, states are kept until `MOST_BYTES` are full."""

    def __init__(self, model: Any, num: int, *, tokens_per_row: int, keep: bool) -> None:
        self.model, self.num = model, num
        self._tokens_per_row, self._keep = tokens_per_row, keep
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
        self._now: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
        self._bytes = 0

    def catch_up(self, method: Method, done: int) -> None:
        """Compute what the first `done` steps of an interrupted run had kept."""
        if self.num and self._keep:
            for step in range(done):
                self.see(method.samples(step))

    def see(self, samples: Sequence[Sample]) -> None:
        """Compute the states of the samples that are not known yet."""
        if not self.num:
            return
        new = {_key(s): s for s in samples if _key(s) not in self._known}
        self._now = {}
        for row in pack(list(new.values()), tokens_per_row=self._tokens_per_row):
            row = on_device(row, next(self.model.parameters()).device)
            with torch.no_grad(), self._below():
                states_TD = trunk_states(self.model, row)
            parts = torch.split(states_TD, [sample.tokens for sample in row.samples])
            self._now |= zip(map(_key, row.samples), parts, strict=True)
        num_bytes = sum(states_TD.nbytes for states_TD in self._now.values())
        if self._keep and self._bytes + num_bytes <= MOST_BYTES:
            self._known, self._bytes = self._known | self._now, self._bytes + num_bytes

    def states(self, row: Packed) -> Tensor | None:
        """States (T, D) behind the frozen layers for a row of seen samples; None where all layers are trained."""
        if not self.num:
            return None
        keys = map(_key, row.samples)
        return torch.cat([self._known[k] if k in self._known else self._now[k] for k in keys])

    @contextmanager
    def _below(self) -> Iterator[None]:
        trunk = self.model.base_model
        norm, trunk.norm = trunk.norm, nn.Identity()
        try:
            with layers_left(self.model, range(self.num)):
                yield
        finally:
            trunk.norm = norm


def _key(sample: Sample) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return sample.prompt_ids, sample.answer_ids
