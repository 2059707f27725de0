"""A causal model in two pieces: the trunk, run on packed rows, and the head, whose product is never formed here.

Any architecture whose attention goes through transformers' interface and restarts at given positions runs
packed; the others run padded, with the same result. Suffixes: T tokens of a row, N its answer tokens, S
samples, L the longest sample, D hidden, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spiritsafe.make.loop import layers
from spiritsafe.make.loop.attention import packing
from spiritsafe.make.packing import on_device, packed
from spiritsafe.make.prune import beginning_with
from spiritsafe.make.samples import Packed, Sample
from spiritsafe.models.logits import LogitForm, logit_form

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


def product_of(model: Any, hidden_ND: Tensor, form: LogitForm) -> tuple[Tensor, Tensor]:
    """States (N, E) and head (V, E) in the states' dtype whose product, capped, is the model's logits.

    The scale goes to the states, a bias becomes a column of the head (and one of zeros: the product's columns are
    taken in pairs).
    """
    head = model.get_output_embeddings()
    head_VD, bias_V = head_of(model), getattr(getattr(head, "base_layer", head), "bias", None)
    if bias_V is not None:
        one_N2 = torch.eye(2)[:1].to(hidden_ND).expand(len(hidden_ND), 2)
        hidden_ND = torch.cat([hidden_ND, one_N2], 1)
        head_VD = torch.cat([head_VD, bias_V[:, None], torch.zeros_like(bias_V)[:, None]], 1)
    return hidden_ND if form.scale == 1 else hidden_ND * form.scale, head_VD.to(hidden_ND.dtype)


def check_head(model: Any) -> None:
    """Raises `ModelError` where a loss cannot follow how the model makes its logits, as `logit_form` says."""
    logit_form(model)


def packs(model: Any) -> bool:
    """Whether the model computes a packed row as it computes the samples one by one; tried out once a model."""
    if model not in _packable:
        _packable[model] = _tried(model)
    return _packable[model]


def _packed_states(model: Any, row: Packed, states_TD: Tensor | None) -> Tensor:
    with packing(model), nullcontext() if states_TD is None else beginning_with(model, states_TD[None]):
        out = model.base_model(
            input_ids=row.ids_T[None], position_ids=row.positions_T[None], use_cache=False, borders=row.borders
        )
    states: Tensor = out.last_hidden_state[0]
    return states


def _padded_states(model: Any, row: Packed, states_TD: Tensor | None) -> Tensor:
    """Samples side by side, padded behind their ends."""
    sizes = torch.tensor([end - begin for begin, end in pairwise(row.borders)])
    mask_SL = (torch.arange(int(sizes.max())) < sizes[:, None]).to(row.ids_T.device)
    ids_SL = torch.zeros_like(mask_SL, dtype=torch.long).masked_scatter(mask_SL, row.ids_T)
    begun: AbstractContextManager[None] = nullcontext()
    if states_TD is not None:
        zeros_SLD = states_TD.new_zeros(*mask_SL.shape, states_TD.shape[-1])
        begun = beginning_with(model, zeros_SLD.masked_scatter(mask_SL[..., None], states_TD))
    with begun:
        out = model.base_model(input_ids=ids_SL, attention_mask=mask_SL.long(), use_cache=False)
    states: Tensor = out.last_hidden_state[mask_SL]
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
