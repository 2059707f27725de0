"""Log-probabilities of given answers; a prompt that several answers share is read once.

Suffixes name axes: B batch, T time, K top-k, N answer tokens of the batch, D hidden, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spiritsafe.models.base import Scores
from spiritsafe.models.decoding.padded import pad_left, pad_right, positions, read_whole, shares_states
from spiritsafe.models.logits import logits_of

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def answer_logprobs(model: Any, pairs: Sequence[Pair], *, pad_id: int, chunk: int = 512) -> Iterator[Tensor]:
    """Log-probabilities (T, V) in float32 for each (prompt ids, answer ids), in order.

    The prompts must not be empty. The head is applied `chunk` tokens at a time, to answer tokens only.
    """
    hidden_ND = torch.cat(answer_hidden(model, pairs, pad_id=pad_id))
    lengths = [len(answer) for _, answer in pairs]
    ready: list[Tensor] = []
    for start in range(0, len(hidden_ND), chunk):
        ready.append(logits_of(model, hidden_ND[start : start + chunk]).float().log_softmax(-1))
        have = sum(len(r) for r in ready)
        while lengths and have >= lengths[0]:
            joined = ready[0] if len(ready) == 1 else torch.cat(ready)
            yield joined[: lengths[0]]
            ready, have = [joined[lengths[0] :]], have - lengths.pop(0)


def score_pairs(model: Any, pairs: Sequence[Pair], *, pad_id: int, top_k: int, batch: int) -> list[Scores]:
    """`Scores` for each (prompt ids, answer ids), in order, `batch` at a time.

    Raises `FloatingPointError` if the model gives NaN.
    """
    scores: list[Scores] = []
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        for (_, answer), logprobs_TV in zip(part, answer_logprobs(model, part, pad_id=pad_id), strict=True):
            scores.append(_scores(answer, logprobs_TV, top_k))
    return scores


def _scores(answer: tuple[int, ...], logprobs_TV: Tensor, top_k: int) -> Scores:
    picked = logprobs_TV.gather(-1, torch.tensor(answer)[:, None])[:, 0].tolist()
    if any(map(math.isnan, picked)):
        raise FloatingPointError
    if not top_k:
        return Scores(answer, tuple(picked))
    top = logprobs_TV.topk(top_k, dim=-1)
    ids = tuple(tuple(row) for row in top.indices.tolist())
    return Scores(answer, tuple(picked), ids, tuple(tuple(row) for row in top.values.tolist()))


def answer_hidden(model: Any, pairs: Sequence[Pair], *, pad_id: int) -> list[Tensor]:
    """Hidden states (T, D) at the positions that predict each answer's tokens."""
    from transformers import DynamicCache

    if not shares_states(model):
        states_BTD, _ = read_whole(model, [prompt + answer[:-1] for prompt, answer in pairs], pad_id=pad_id)
        begins = [(len(prompt) - 1, len(answer)) for prompt, answer in pairs]
        return [states_TD[at : at + num] for states_TD, (at, num) in zip(states_BTD, begins, strict=True)]
    unique = list(dict.fromkeys(prompt for prompt, _ in pairs))
    ids_BT, mask_BT = pad_left(unique, pad_id)
    cache = DynamicCache(config=model.config)
    first_BTD = model.base_model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions(mask_BT), past_key_values=cache, use_cache=True
    ).last_hidden_state
    index = torch.tensor([unique.index(prompt) for prompt, _ in pairs])
    longest = max(len(answer) for _, answer in pairs) - 1
    if longest < 1:
        return [first_BTD[i, -1:] for i in index.tolist()]
    cache.batch_select_indices(index)
    rest_BT, rest_mask_BT = pad_right([answer[:-1] for _, answer in pairs], longest, pad_id)
    full_mask_BT = torch.cat([mask_BT[index], rest_mask_BT], 1)
    rest_BTD = model.base_model(
        input_ids=rest_BT,
        attention_mask=full_mask_BT,
        position_ids=positions(full_mask_BT)[:, -longest:],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return [
        torch.cat([first_BTD[i, -1:], rest_BTD[row, : len(answer) - 1]])
        for row, (i, (_, answer)) in enumerate(zip(index.tolist(), pairs, strict=True))
    ]
