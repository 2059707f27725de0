"""Attention within the samples of a packed row: each query sees its own sample's earlier tokens, no other's.

Registered with transformers under `PACKED`; a row's borders come as a keyword of the model's forward call.
Shapes: query (1, H, T, D), key and value (1, G, T, D) where G divides H; result (1, T, H, D).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "spiritsafe-packed"


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    borders: Sequence[int],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """One causal attention per sample. Raises `NotImplementedError` for capped scores and attention sinks."""
    if softcap is not None or s_aux is not None or attention_mask is not None:
        raise NotImplementedError("attention with capped scores, sinks or a mask of its own")
    sizes = [end - begin for begin, end in pairwise(borders)]
    parts = zip(*(torch.split(x, sizes, 2) for x in (query, key, value)), strict=True)
    grouped = key.shape[1] != query.shape[1]
    out = []
    for q, k, v in parts:
        band = _band(q.shape[2], sliding_window, q.device)
        out.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=band, is_causal=band is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(out, 2).transpose(1, 2), None


@contextmanager
def packing(model: Any) -> Iterator[None]:
    """The model's attention stays within samples for a while; its weights and code are not touched."""
    AttentionInterface.register(PACKED, packed_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = PACKED
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _band(size: int, window: int | None, device: torch.device) -> Tensor | None:
    """The mask of a sliding window over a sample longer than it; None where plain causality says the same."""
    if window is None or size <= window:
        return None
    all_TT = torch.ones(size, size, dtype=torch.bool, device=device)
    return all_TT.tril() & all_TT.triu(1 - window)
