"""Which samples each step sees, in a seeded order that does not depend on where a run was resumed.

Also right-padded batches for what is not training. Suffixes: B batch, T time, N answer tokens of the batch.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spiritsafe.make.samples import Sample
from spiritsafe.models.decoding.scoring import Pair
from spiritsafe.recipe import TrainPart

BATCH = 8


def order(sizes: Sequence[int], settings: TrainPart, *, seed: int) -> list[tuple[int, ...]]:
    """The samples of each step; `sizes` are their answer tokens.

    Every epoch is a seeded permutation, cut after `batch` samples or before a step would hold more than
    `tokens_per_step` answer tokens; no step crosses an epoch's end.
    """
    mixed = [_permutation(len(sizes), epoch, seed) for epoch in range(settings.epochs)]
    if settings.tokens_per_step:
        return [step for epoch in mixed for step in _cut(epoch, sizes, settings.tokens_per_step)]
    size = settings.batch or BATCH
    return [tuple(epoch[start : start + size]) for epoch in mixed for start in range(0, len(sizes), size)]


def digest_samples(samples: Sequence[Sample]) -> str:
    """A digest of the samples' tokens and weights, in order."""
    total = hashlib.sha256()
    for sample in samples:
        for ids in (sample.prompt_ids, sample.answer_ids):
            total.update(np.array([len(ids), *ids], dtype=np.int64).tobytes())
        total.update(np.array(sample.weights or (), dtype=np.float64).tobytes())
        total.update(sample.teacher.encode() + b"\0")
    return total.hexdigest()


def samples_of(pairs: Iterable[Pair]) -> list[Sample]:
    """(prompt ids, answer ids) as samples."""
    return [Sample(prompt, answer) for prompt, answer in pairs]


def _permutation(num: int, epoch: int, seed: int) -> list[int]:
    mixed: list[int] = np.random.Generator(np.random.Philox(key=seed, counter=epoch << 128)).permutation(num).tolist()
    return mixed


def _cut(mixed: Sequence[int], sizes: Sequence[int], most: int) -> list[tuple[int, ...]]:
    steps: list[list[int]] = []
    held = most
    for i in mixed:
        if held + sizes[i] > most:
            steps.append([])
            held = 0
        steps[-1].append(i)
        held += sizes[i]
    return [tuple(step) for step in steps]


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
