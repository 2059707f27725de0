"""A causal model in two pieces: the trunk, run on packed rows, and the head, whose product is never formed here.

Any architecture whose attention goes through transformers' interface and restarts at given positions runs
packed; the others run padded, with the same result. Suffixes: T tokens of a row, N its answer tokens, S
samples, L the longest sample, D hidden, V vocabulary.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spiritsafe.errors import ModelError
from spiritsafe.make.loop import layers
from spiritsafe.make.loop.attention import packing
from spiritsafe.make.packing import on_device, packed
from spiritsafe.make.samples import Packed, Sample

PROBE = (Sample((3, 1, 4, 1), (5, 9, 2)), Sample((6, 5), (3, 5, 8, 9, 7)))
_packable: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def hidden_states(model: Any, row: Packed, *, states_TD: Tensor | None = None) -> Tensor:
    """Final hidden states (N, D) at the places that predict the row's answer tokens.

    With `states_TD` the model begins with these instead of its embeddings. Gradients flow where enabled. The
    result has the weights' dtype.
    """
    if layers.runs(model, row):
        found_UD, place_T = layers.run(model, row, states_TD)
        found_ND = model.base_model.norm(found_UD.index_select(0, place_T[row.rows_N]))
    else:
        found_ND = trunk_states(model, row, states_TD=states_TD)[row.rows_N]
    return cast(Tensor, found_ND.to(model.get_input_embeddings().weight.dtype))


def trunk_states(model: Any, row: Packed, *, states_TD: Tensor | None = None) -> Tensor:
    """Final hidden states (T, D) of all tokens of a row, float32 where our own layers ran."""
    if layers.runs(model, row):
        found_UD, place_T = layers.run(model, row, states_TD)
        return cast(Tensor, model.base_model.norm(found_UD).index_select(0, place_T))
    if states_TD is not None:
        states_TD = states_TD.to(model.get_input_embeddings().weight.dtype)
    return _packed_states(model, row, states_TD) if packs(model) else _padded_states(model, row, states_TD)


def head_of(model: Any) -> Tensor:
    """The head (V, D), with a low-rank adapter's product added where it has one."""
    head = model.get_output_embeddings()
    base = getattr(head, "base_layer", head)
    weight_VD: Tensor = base.weight
    for name in getattr(head, "active_adapters", ()):
        weight_VD = weight_VD + head.scaling[name] * (head.lora_B[name].weight @ head.lora_A[name].weight)
    return weight_VD


def packs(model: Any) -> bool:
    """Whether the model computes a packed row as it computes the samples one by one; tried out once a model."""
    if model not in _packable:
        _packable[model] = _tried(model)
    return _packable[model]


def check_head(model: Any) -> None:
    """Raises `ModelError` where logits are more than hidden states times head (a bias, a scale, a cap)."""
    row = _on_model(model, PROBE[:1])
    with torch.no_grad():
        logits_TV = model(input_ids=row.ids_T[None], use_cache=False).logits[0].float()
        product_TV = (_padded_states(model, row, None) @ head_of(model).T).float()
    if _apart(product_TV, logits_TV):
        what = "logits are not hidden states times a head (it has a bias, a scale or a cap)"
        raise ModelError(type(model).__name__, what, "choose a student of another architecture")


def _packed_states(model: Any, row: Packed, states_TD: Tensor | None) -> Tensor:
    given = {"input_ids": row.ids_T[None]} if states_TD is None else {"inputs_embeds": states_TD[None]}
    with packing(model):
        out = model.base_model(**given, position_ids=row.positions_T[None], use_cache=False, borders=row.borders)
    states: Tensor = out.last_hidden_state[0]
    return states


def _padded_states(model: Any, row: Packed, states_TD: Tensor | None) -> Tensor:
    """Samples side by side, padded behind their ends."""
    sizes = torch.tensor([end - begin for begin, end in pairwise(row.borders)])
    mask_SL = (torch.arange(int(sizes.max())) < sizes[:, None]).to(row.ids_T.device)
    given: dict[str, Tensor] = {"attention_mask": mask_SL.long()}
    if states_TD is None:
        given["input_ids"] = torch.zeros_like(mask_SL, dtype=torch.long).masked_scatter(mask_SL, row.ids_T)
    else:
        zeros_SLD = states_TD.new_zeros(*mask_SL.shape, states_TD.shape[-1])
        given["inputs_embeds"] = zeros_SLD.masked_scatter(mask_SL[..., None], states_TD)
    states: Tensor = model.base_model(**given, use_cache=False).last_hidden_state[mask_SL]
    return states


def _tried(model: Any) -> bool:
    row = _on_model(model, PROBE)
    with torch.no_grad():
        alone_TD = torch.cat([_padded_states(model, _on_model(model, [sample]), None) for sample in PROBE])
        try:
            return not _apart(_packed_states(model, row, None), alone_TD)
        except (TypeError, NotImplementedError):  # no keyword for borders or positions, or attention of its own kind
            return False


def _apart(found: Tensor, wanted: Tensor) -> bool:
    """Whether two results differ by more than the rounding of their type."""
    most = 5e-2 if found.dtype == torch.bfloat16 else 1e-4
    return bool((found.float() - wanted.float()).norm() > most * wanted.float().norm())


def _on_model(model: Any, samples: Sequence[Sample]) -> Packed:
    return on_device(packed(samples), next(model.parameters()).device)
