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
from spiritsafe.make.depth import cuts, layers_left, layers_of, why_no_layers, why_not_without, without_block
from spiritsafe.models.decoding.scoring import Pair
from spiritsafe.models.logits import logits_of

CUT_HINT = "leave out another number of layers, or name a student's address or config:FILE"


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

    Layers below a block run once for all blocks: each trial starts from the hidden states in front of it. Blocks
    without which the model could not be saved are not tried. Raises `RecipeError` where that leaves no block to choose.
    """
    depth = num_layers_of(model)
    size = depth - num_layers
    if not 2 <= num_layers < depth:
        hint = f"choose 2 to {depth - 1}"
        raise RecipeError("make.num_layers", f"is {num_layers}, the teacher has {depth} layers", hint)
    starts, reason = cuts(model, num_layers)
    if not starts:
        raise RecipeError("make.num_layers", f"no block of {size} layers can be left out: {reason}", CUT_HINT)
    batch = collate(pairs, tuple(range(len(pairs))), pad_id=pad_id)
    costs: dict[int, float] = {}
    with torch.inference_mode():
        with _states_seen(layers_of(model)) as seen:
            hidden = model.base_model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False)
        whole_NV = _logprobs(model, hidden.last_hidden_state, batch)
        for start in starts:
            with layers_left(model, range(start + size, depth)), beginning_with(model, seen[start]):
                last_BTD = model.base_model(
                    input_ids=batch.ids_BT, attention_mask=batch.mask_BT, use_cache=False
                ).last_hidden_state
            pruned_NV = _logprobs(model, last_BTD, batch)
            costs[start] = float((whole_NV.exp() * (whole_NV - pruned_NV)).sum(-1).mean())
            tick()
    best = min(costs, key=lambda start: costs[start])
    return Cut(without_block(depth, best, size), costs)


def first_changed(keep: Sequence[int]) -> int:
    """The first layer of a student that follows another one than in its teacher; 0 where none does."""
    return next((place for place, layer in enumerate(keep) if place != layer), 0)


def prune(model: Any, keep: Sequence[int]) -> Any:
    """A copy of a model with only the layers `keep`, in order; its config says so.

    Raises `RecipeError` where there are no such layers, or the config cannot say it.
    """
    depth = num_layers_of(model)
    if not keep or max(keep) >= depth:
        raise RecipeError("make.drop", f"the teacher has layers 0 to {depth - 1}")
    if reason := why_not_without(model, keep):
        raise RecipeError("make.drop", f"layers {', '.join(map(str, keep))} alone cannot be saved: {reason}", CUT_HINT)
    with layers_left(model, keep):
        return copy.deepcopy(model)


def num_layers_of(model: Any) -> int:
    """The model's depth. Raises `RecipeError` where its layers cannot be told apart."""
    if reason := why_no_layers(model):
        raise RecipeError("--student pruned", reason, "name a student's address or config:FILE")
    return len(layers_of(model))


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
    hook = layers_of(model)[0].register_forward_pre_hook(give, with_kwargs=True, prepend=True)
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
