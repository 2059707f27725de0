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
from spiritsafe.make.batches import Batch, collate
from spiritsafe.models.logits import logits_of
from spiritsafe.models.scoring import Pair


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
    tick: Callable[[], None] = lambda: None,
) -> Cut:
    """The contiguous block whose loss costs the least KL on `pairs`; first and last layer always stay.

    Layers below a block run once for all blocks: each trial starts from the hidden states in front of it.
    Raises `RecipeError` where that leaves no block to choose.
    """
    depth = len(model.model.layers)
    size = depth - num_layers
    if not 2 <= num_layers < depth:
        hint = f"choose 2 to {depth - 1}"
        raise RecipeError("make.num_layers", f"is {num_layers}, the teacher has {depth} layers", hint)
    batch = collate(pairs, tuple(range(len(pairs))), pad_id=pad_id)
    costs: dict[int, float] = {}
    with torch.inference_mode():
        with _states_seen(model.model.layers) as seen:
            hidden = model.base_model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False)
        whole_NV = _logprobs(model, hidden.last_hidden_state, batch)
        for start in range(1, num_layers):
            with layers_left(model, range(start + size, depth)), beginning_with(model, seen[start]):
                last_BTD = model.base_model(
                    input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False
                ).last_hidden_state
            pruned_NV = _logprobs(model, last_BTD, batch)
            costs[start] = float((whole_NV.exp() * (whole_NV - pruned_NV)).sum(-1).mean())
            tick()
    best = min(costs, key=lambda start: costs[start])
    return Cut(without_block(depth, best, size), costs)


def without_block(depth: int, start: int, size: int) -> tuple[int, ...]:
    """Layer numbers of a model of `depth` layers without the block of `size` that begins at `start`."""
    return tuple(i for i in range(depth) if not start <= i < start + size)


def first_changed(keep: Sequence[int]) -> int:
    """The first layer of a student that follows another one than in its teacher; 0 where none does."""
    return next((place for place, layer in enumerate(keep) if place != layer), 0)


def prune(model: Any, keep: Sequence[int]) -> Any:
    """A copy of a model with only the layers `keep`, in order; its config says so."""
    if not keep or max(keep) >= len(model.model.layers):
        raise RecipeError("make.drop", f"the teacher has layers 0 to {len(model.model.layers) - 1}")
    with layers_left(model, keep):
        return copy.deepcopy(model)


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


@contextmanager
def beginning_with(model: Any, states_BTD: Tensor) -> Iterator[None]:
    """The first layer gets these states for a while, whatever the model makes of its tokens.

    States given as `inputs_embeds` would be multiplied once more by Gemma and Granite.
    """

    def give(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (states_BTD, *args[1:]), given
        return args, given | {"hidden_states": states_BTD}

    # In front of FSDP's own hook, which casts what comes in.
    hook = model.base_model.layers[0].register_forward_pre_hook(give, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _states_seen(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """The states in front of each layer, as it is run.

    transformers' own way (`output_hidden_states`) leaves hooks on the layers for good, and a layer with hooks is
    computed by another path, with other roundings.
    """
    seen: list[Tensor] = []

    def see(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        seen.append(args[0] if args else given["hidden_states"])

    hooks = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _logprobs(model: Any, hidden_BTD: Tensor, batch: Batch) -> Tensor:
    return logits_of(model, hidden_BTD[batch.rows_N, batch.columns_N]).float().log_softmax(-1)
