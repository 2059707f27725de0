"""Decode a left-padded batch on any Hugging Face causal language model.

Equal prompts are prefilled once and their keys and values shared out; finished rows leave the batch.
Suffixes name axes: B batch, T time, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spiritsafe.models.sampling import draw
from spiritsafe.record import Sampling


@dataclass
class Row:
    """One sequence while it grows: its prompt's tokens, settings, and what was drawn so far."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    drawn: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def decode(
    model: Any, rows: Sequence[Row], *, pad_id: int, finished: Callable[[int, Row], bool], compact: float = 0.75
) -> None:
    """Extend every row in place until `finished(index, row)`, asked after each token.

    `logprobs` are the model's own at temperature 1. Rows that ended are dropped from the batch once
    less than the share `compact` of it is still growing.
    """
    logits_BV, cache, mask_BT = prefill(model, [row.prompt_ids for row in rows], pad_id=pad_id)
    active = list(range(len(rows)))
    done: set[int] = set()
    while True:
        tokens_B = _draw(logits_BV, [rows[i] for i in active])
        for i, token, logprob in zip(active, tokens_B.tolist(), _logprobs(logits_BV, tokens_B), strict=True):
            if i not in done:
                rows[i].drawn.append(token)
                rows[i].logprobs.append(logprob)
                if finished(i, rows[i]):
                    done.add(i)
        if len(done) == len(rows):
            return
        keep = [place for place, i in enumerate(active) if i not in done]
        if len(keep) <= compact * len(active):
            index = torch.tensor(keep)
            cache.batch_select_indices(index)
            mask_BT, tokens_B = mask_BT[index], tokens_B[index]
            active = [active[place] for place in keep]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(active), 1)], 1)
        logits_BV = _step(model, tokens_B, cache, mask_BT)


def prefill(model: Any, prompts: Sequence[tuple[int, ...]], *, pad_id: int) -> tuple[Tensor, Any, Tensor]:
    """Logits (B, V) after each prompt, the cache and the attention mask (B, T); equal prompts run once."""
    from transformers import DynamicCache

    unique = list(dict.fromkeys(prompts))
    ids_BT, mask_BT = pad_left(unique, pad_id)
    cache = DynamicCache(config=model.config)
    out = model(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=positions(mask_BT),
        past_key_values=cache,
        logits_to_keep=1,
    )
    place = {prompt: i for i, prompt in enumerate(unique)}
    index = torch.tensor([place[p] for p in prompts])
    if len(unique) < len(prompts):
        cache.batch_select_indices(index)
    return out.logits[index, -1], cache, mask_BT[index]


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (B, T), real tokens at the right edge."""
    width = max(len(s) for s in sequences)
    ids_BT = torch.full((len(sequences), width), pad_id)
    mask_BT = torch.zeros_like(ids_BT)
    for row, sequence in enumerate(sequences):
        if sequence:
            ids_BT[row, -len(sequence) :] = torch.tensor(sequence)
            mask_BT[row, -len(sequence) :] = 1
    return ids_BT, mask_BT


def positions(mask_BT: Tensor) -> Tensor:
    """Position of each real token in its own sequence, (B, T); padding gets 0."""
    return (mask_BT.cumsum(-1) - 1).clamp_(min=0)


def _step(model: Any, tokens_B: Tensor, cache: Any, mask_BT: Tensor) -> Tensor:
    out = model(
        input_ids=tokens_B[:, None],
        attention_mask=mask_BT,
        position_ids=positions(mask_BT)[:, -1:],
        past_key_values=cache,
    )
    logits_BV: Tensor = out.logits[:, -1]
    return logits_BV


def _draw(logits_BV: Tensor, rows: Sequence[Row]) -> Tensor:
    settings = [r.sampling for r in rows]
    return draw(
        logits_BV,
        [s.seed or 0 for s in settings],
        [len(r.drawn) for r in rows],
        [s.temperature for s in settings],
        [s.top_p for s in settings],
    )


def _logprobs(logits_BV: Tensor, tokens_B: Tensor) -> list[float]:
    logits_BV = logits_BV.float()
    picked: list[float] = (logits_BV.gather(-1, tokens_B[:, None])[:, 0] - logits_BV.logsumexp(-1)).tolist()
    return picked
