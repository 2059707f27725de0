"""A local model's answers by the rollout's engine: the same draws as `models.decode`, several times as fast.

For models whose weights stay as they are while they answer. Suffixes name axes: B rows, V vocabulary.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spiritsafe.make.rollout import race
from spiritsafe.make.rollout.race import Drawing
from spiritsafe.make.rollout.steps import MAX_ROWS, Steps, fits
from spiritsafe.models.decode import Row, decode
from spiritsafe.models.local import LocalModel

CACHE_BYTES = 1 << 30


def fast(model: LocalModel) -> LocalModel:
    """The model itself, which from now on answers by this engine where its architecture allows it."""
    model.decode = decode_fast
    return model


def decode_fast(model: Any, rows: Sequence[Row], *, pad_id: int, finished: Callable[[int, Row], bool]) -> None:
    """As `models.decode.decode`: extend every row in place until `finished`; in float32, whatever the batch."""
    capacity = max(len(row.prompt_ids) + row.sampling.max_tokens for row in rows)
    if model.dtype != torch.float32 or not fits(model, capacity):
        decode(model, rows, pad_id=pad_id, finished=finished)
        return
    steps = Steps(model, slots=min(len(rows), _slots(model.config, capacity)), capacity=capacity, half=False)
    waiting, growing = deque(enumerate(rows)), dict[int, tuple[int, Row]]()
    while waiting or growing:
        free = [slot for slot in range(steps.slots) if slot not in growing]
        new = {slot: waiting.popleft() for slot in free[: len(waiting)]}
        steps.seat([(slot, row.prompt_ids[:-1]) for slot, (_, row) in new.items()])
        growing |= new
        _step(steps, growing)
        growing = {slot: (i, row) for slot, (i, row) in growing.items() if not (row.broken or finished(i, row))}


def _step(steps: Steps, growing: dict[int, tuple[int, Row]]) -> None:
    """One token more for each row."""
    rows = [row for _, row in growing.values()]
    last = [row.drawn[-1] if row.drawn else row.prompt_ids[-1] for row in rows]
    places = [len(row.prompt_ids) - 1 + len(row.drawn) for row in rows]
    logits_BV = steps.forward(last, list(growing), places, range(len(rows)))
    kinds: dict[Drawing, list[int]] = {}
    for at, row in enumerate(rows):
        kinds.setdefault(Drawing(row.sampling.temperature, row.sampling.top_p), []).append(at)
    for drawing, members in kinds.items():
        part_BV = logits_BV if len(kinds) == 1 else logits_BV[members]
        _draw(part_BV, [rows[at] for at in members], drawing)


def _draw(logits_BV: Tensor, rows: Sequence[Row], drawing: Drawing) -> None:
    seeds, ahead = [row.sampling.seed or 0 for row in rows], [len(row.drawn) for row in rows]
    for row, token, logprob in zip(rows, *race.draw(logits_BV, seeds, ahead, drawing), strict=True):
        row.broken = not math.isfinite(logprob)
        if not row.broken:
            row.drawn.append(token)
            row.logprobs.append(logprob)


def _slots(config: Any, capacity: int) -> int:
    """So many sequences that their keys and values stay within `CACHE_BYTES`."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * dim * capacity
    return max(1, min(MAX_ROWS, CACHE_BYTES // int(each)))
