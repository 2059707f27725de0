"""Decode a left-padded batch on any Hugging Face causal language model.

Equal prompts are prefilled once and their keys and values shared out; finished rows leave the batch.
Suffixes name axes: B batch, T time, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spiritsafe.models.decoding.sampling import draw
from spiritsafe.models.logits import logits_of
from spiritsafe.record import Sampling


@dataclass
class Row:
    """One sequence while it grows: its prompt's tokens, settings, and what was drawn so far.

    `broken` is one for which the model gave NaN or infinity: it ends before that token.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    drawn: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    broken: bool = False


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
            if i in done:
                continue
            rows[i].broken = not math.isfinite(logprob)
            if not rows[i].broken:
                rows[i].drawn.append(token)
                rows[i].logprobs.append(logprob)
            if rows[i].broken or finished(i, rows[i]):
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
    if not shares_states(model):
        whole = Whole(list(prompts), pad_id)
        return whole.logits(model), whole, torch.ones(len(prompts), 1, dtype=torch.long)
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


def shares_states(model: Any) -> bool:
    """Whether what a model keeps of the tokens it has read can be shared out between sequences.

    States of convolutions and recurrences (LFM2, Mamba, Qwen3-Next) cannot: such models read anew for each token.
    """
    from transformers import DynamicCache

    return all(hasattr(layer, "batch_select_indices") for layer in DynamicCache(config=model.config).layers)


@dataclass
class Whole:
    """In a cache's place: the sequences themselves, read from their beginning for each token."""

    ids: list[tuple[int, ...]]
    pad_id: int

    def batch_select_indices(self, index: Tensor) -> None:
        """Keep some of the sequences."""
        self.ids = [self.ids[i] for i in index.tolist()]

    def logits(self, model: Any) -> Tensor:
        """Logits (B, V) after each sequence."""
        states_BTD, mask_BT = read_whole(model, self.ids, pad_id=self.pad_id)
        return logits_of(model, states_BTD[torch.arange(len(self.ids)), mask_BT.sum(1) - 1])


def read_whole(model: Any, sequences: Sequence[Sequence[int]], *, pad_id: int) -> tuple[Tensor, Tensor]:
    """Final hidden states (B, T, D) of sequences padded behind their ends, without a cache, and the mask (B, T)."""
    ids_BT, mask_BT = pad_right(sequences, max(map(len, sequences)), pad_id)
    states: Tensor = model.base_model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
    return states, mask_BT


def pad_right(sequences: Sequence[Sequence[int]], width: int, pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both (B, T), real tokens at the left edge."""
    ids_BT = torch.full((len(sequences), width), pad_id)
    mask_BT = torch.zeros_like(ids_BT)
    for row, sequence in enumerate(sequences):
        ids_BT[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask_BT[row, : len(sequence)] = 1
    return ids_BT, mask_BT


def _step(model: Any, tokens_B: Tensor, cache: Any, mask_BT: Tensor) -> Tensor:
    if isinstance(cache, Whole):
        cache.ids = [(*ids, token) for ids, token in zip(cache.ids, tokens_B.tolist(), strict=True)]
        return cache.logits(model)
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
