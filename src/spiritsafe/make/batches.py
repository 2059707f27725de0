"""Exchanges -> training batches in a seeded order that does not depend on where a run was resumed.

Suffixes name axes: B batch, T time, N answer tokens of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spiritsafe.models.scoring import Pair


@dataclass(frozen=True)
class Batch:
    """Right-padded inputs; `rows_N`, `columns_N` are the positions that predict `targets_N`.

    `items` are the exchanges' numbers, in the order of their tokens.
    """

    items: tuple[int, ...]
    ids_BT: Tensor
    mask_BT: Tensor
    rows_N: Tensor
    columns_N: Tensor
    targets_N: Tensor


def order(num: int, *, epochs: int, size: int, seed: int) -> list[tuple[int, ...]]:
    """Which exchanges each step sees: every epoch a seeded permutation, cut into batches of `size`."""
    steps: list[tuple[int, ...]] = []
    for epoch in range(epochs):
        mixed = np.random.Generator(np.random.Philox(key=seed, counter=epoch << 128)).permutation(num).tolist()
        steps += [tuple(mixed[start : start + size]) for start in range(0, num, size)]
    return steps


def collate(pairs: Sequence[Pair], items: tuple[int, ...], *, pad_id: int) -> Batch:
    """The batch of the exchanges `items`."""
    chosen = [pairs[i] for i in items]
    width = max(len(p) + len(a) for p, a in chosen)
    ids_BT = torch.full((len(chosen), width), pad_id)
    mask_BT = torch.zeros_like(ids_BT)
    rows: list[int] = []
    columns: list[int] = []
    for row, (prompt, answer) in enumerate(chosen):
        ids_BT[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask_BT[row, : len(prompt) + len(answer)] = 1
        rows += [row] * len(answer)
        columns += range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    targets_N = torch.tensor([t for _, answer in chosen for t in answer])
    return Batch(items, ids_BT, mask_BT, torch.tensor(rows), torch.tensor(columns), targets_N)
