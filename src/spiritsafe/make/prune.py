"""Depth-pruned students: which layers to leave out, by measured importance, and the copy without them.

A contiguous block is left out (as in "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv
2403.17887); which one is measured by the KL divergence to the whole model on its own answers, not by the
angle between hidden states. Layers below the cut then see exactly what they saw in the teacher.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spiritsafe.errors import RecipeError
from spiritsafe.models.scoring import Pair, answer_logprobs


@dataclass(frozen=True)
class Cut:
    """Layers that stay, and the KL (nats per token) of every block that was tried by its first layer."""

    keep: tuple[int, ...]
    kl_by_start: dict[int, float]


def choose_cut(
    model: Any,
    pairs: Sequence[Pair],
    *,
    num_layers: int,
    pad_id: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Cut:
    """The contiguous block whose loss costs the least KL on `pairs`; first and last layer always stay.

    Raises `RecipeError` where the model has no more than `num_layers` layers.
    """
    depth = len(model.model.layers)
    size = depth - num_layers
    if size < 1:
        raise RecipeError("make.num_layers", f"is {num_layers}, the teacher has {depth} layers", "choose fewer")
    starts = range(1, num_layers)
    with torch.inference_mode():
        whole = list(answer_logprobs(model, pairs, pad_id=pad_id))
        costs: dict[int, float] = {}
        for start in starts:
            keep = without_block(depth, start, size)
            with layers_left(model, keep):
                costs[start] = _mean_kl(whole, answer_logprobs(model, pairs, pad_id=pad_id))
            tick(len(costs), len(starts))
    best = min(costs, key=lambda start: costs[start])
    return Cut(without_block(depth, best, size), costs)


def without_block(depth: int, start: int, size: int) -> tuple[int, ...]:
    """Layer numbers of a model of `depth` layers without the block of `size` that begins at `start`."""
    return tuple(i for i in range(depth) if not start <= i < start + size)


def prune(model: Any, keep: Sequence[int]) -> Any:
    """A copy of a model with only the layers `keep`, in order; its config says so."""
    if not keep or max(keep) >= len(model.model.layers):
        raise RecipeError("make.drop", f"the teacher has layers 0 to {len(model.model.layers) - 1}")
    with layers_left(model, keep):
        student = copy.deepcopy(model)
    student.generation_config = copy.deepcopy(model.generation_config)
    return student


@contextmanager
def layers_left(model: Any, keep: Sequence[int]) -> Iterator[None]:
    """Run a model with only the layers `keep` for a while; nothing is copied."""
    layers, depth = model.model.layers, model.config.num_hidden_layers
    types = getattr(model.config, "layer_types", None)
    numbers = [layer.self_attn.layer_idx for layer in layers]
    try:
        model.model.layers = nn.ModuleList([layers[i] for i in keep])
        model.config.num_hidden_layers = len(keep)
        if types is not None:
            model.config.layer_types = [types[i] for i in keep]
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.layer_idx = number
        yield
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, depth
        if types is not None:
            model.config.layer_types = types
        for number, layer in zip(numbers, layers, strict=True):
            layer.self_attn.layer_idx = number


def _mean_kl(whole: Sequence[Tensor], pruned: Iterator[Tensor]) -> float:
    total = sum((p.exp() * (p - q)).sum().item() for p, q in zip(whole, pruned, strict=True))
    return float(total / sum(len(p) for p in whole))
