"""Layers of a Llama-family model on packed rows in C++, forward and backward, where the model allows it.

The residual stream and all sums are float32; what enters a product has the weights' dtype, as under autocast.
Gradients of weights are added to their `grad` in float32. Suffixes: T tokens of a row, D hidden.
"""

import ctypes
import weakref
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from spiritsafe.make.samples import Packed
from spiritsafe.models.decoding.llama import PROJECTIONS, fits
from spiritsafe.native import native

SOURCE = Path(__file__).with_name("layers.cpp")
NORMS = ("input_layernorm", "post_attention_layernorm", "q_norm", "k_norm")
_known: "weakref.WeakKeyDictionary[nn.Module, Layer]" = weakref.WeakKeyDictionary()


def runs(model: Any, row: Packed) -> bool:
    """Whether these layers compute what the model's own would: its architecture, plain weights, no one watching."""
    longest = max(end - begin for begin, end in pairwise(row.borders))
    if not fits(model, longest) or native(SOURCE, torch=True) is None:
        return False
    layers = model.base_model.layers
    return all(map(_plain, layers)) and len({w.dtype for w in layers.parameters() if w.ndim == 2}) == 1


def run(model: Any, row: Packed, states_TD: Tensor | None) -> tuple[Tensor, Tensor]:
    """The float32 states (U, D) behind all layers, before the last norm, and which of them each token has (T).

    A prompt that several of the row's samples share is computed once. The model begins with `states_TD`, or
    with its embeddings.
    """
    core, once = model.base_model, Once(row)
    states_UD = core.get_input_embeddings()(row.ids_T[once.kept_U]) if states_TD is None else states_TD[once.kept_U]
    states_UD = states_UD.float()
    turned = core.rotary_emb(states_UD, row.positions_T[once.kept_U][None])
    half = turned[0].shape[-1] // 2
    tables = [table[0, :, :half].float().contiguous() for table in turned]
    spare: list[Tensor | None] | None = None
    for module in core.layers:
        back = torch.is_grad_enabled() and (
            states_UD.requires_grad or any(w.requires_grad for w in module.parameters())
        )
        layer = _layer(module, model.config, back)
        if back:
            given = (states_UD, layer, once, tables, layer.weights[0])
            states_UD = cast(Tensor, _Step.apply(*given))  # type: ignore[no-untyped-call]
        else:
            states_UD, spare = layer.forward(states_UD, once, tables, spare)
    return states_UD, once.place_T


def changed(model: Any) -> None:
    """Call after weights were written in a way that torch's version counters do not see, as through `.data`."""
    for module in model.modules():
        if module in _known:
            _known[module].state = ()


def _layer(module: Any, config: Any, back: bool) -> "Layer":
    """The module's layer with its weights as they are now."""
    weights = _weights(module)
    known = _known.get(module)
    if known is None or known.dtype != weights[0].dtype:
        known = _known[module] = Layer(weights, config)
    known.take(weights, back)
    return known


def forget(model: Any) -> None:
    """Give back the memory of the model's laid-out weights."""
    for module in model.modules():
        _known.pop(module, None)


class Once:
    """A row's tokens without the prompts that an earlier sample has already: `kept_U` of its T places.

    Samples with one prompt lie side by side, the first with it, the others with their answers alone.
    """

    def __init__(self, row: Packed) -> None:
        families: dict[tuple[int, ...], list[int]] = {}
        for i, sample in enumerate(row.samples):
            families.setdefault(sample.prompt_ids, []).append(i)
        self.place_T, kept, spans, firsts, end = torch.empty_like(row.ids_T), [], [], [0], 0
        for prompt, members in families.items():
            prefix = end
            for i in members:
                shared = len(prompt) if i != members[0] else 0
                begin, size = row.borders[i] + shared, row.samples[i].tokens - shared
                kept.append(torch.arange(begin, begin + size))
                self.place_T[begin - shared : begin] = torch.arange(prefix, prefix + shared)
                self.place_T[begin : begin + size] = torch.arange(end, end + size)
                spans.append((prefix, shared, end, end + size))
                end += size
            firsts.append(len(spans))
        self.kept_U = torch.cat(kept)
        self._arrays = [np.array(a, np.int64) for a in ((end, len(spans), len(families)), spans, firsts)]
        self.pointers = [ctypes.c_void_p(a.ctypes.data) for a in self._arrays]


class Layer:
    """One layer's weights laid out for products, and its two passes."""

    def __init__(self, weights: list[Any], config: Any) -> None:
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        self.hidden, self.inner, self.heads, self.all = config.hidden_size, config.intermediate_size, heads, heads * dim
        self.width, self.placed = -(-(heads + 2 * groups) * dim // 32) * 32, (heads + groups) * dim
        self.weights, self.dtype, self.normed = weights, weights[0].dtype, weights[-1] is not None
        self.state: tuple[Any, ...] = ()
        library = native(SOURCE, torch=True)
        assert library, "asked of `runs`"
        self._library = library
        library.layer_new.restype = ctypes.c_void_p
        sizes = np.array([self.hidden, self.inner, heads, groups, dim], np.int64)
        half = int(self.dtype == torch.bfloat16)
        made = library.layer_new(ctypes.c_void_p(sizes.ctypes.data), ctypes.c_double(config.rms_norm_eps), half)
        self._handle = ctypes.c_void_p(made)
        weakref.finalize(self, library.layer_free, self._handle)

    def take(self, weights: list[Any], back: bool) -> None:
        """Lay out the weights anew where they have changed; for a backward pass once more, the other way."""
        self.weights = weights
        back = back or self.state[:1] == (True,)
        state = (back, *((w.data_ptr(), w._version) for w in weights if w is not None))
        if state != self.state:
            kept = [w if w is None or i < len(PROJECTIONS) else w.detach().float() for i, w in enumerate(weights)]
            self._library.layer_load(self._handle, _array(kept), int(back), torch.get_num_threads())
            self.state = state

    def forward(
        self, states_TD: Tensor, once: Once, tables: Sequence[Tensor], spare: list[Tensor | None] | None = None
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The layer's result and what its backward pass needs, in the memory of another layer's where it is given."""
        states_TD = states_TD.detach().contiguous()
        kept = [states_TD, *(spare[1:] if spare else self._room(states_TD))]
        out_TD = torch.empty_like(states_TD)
        out = ctypes.c_void_p(out_TD.data_ptr())
        self._library.layer_forward(self._handle, *self._row(once, tables), out, _array(kept), torch.get_num_threads())
        return out_TD, kept

    def _room(self, states_TD: Tensor) -> list[Tensor | None]:
        """Memory for what `Kept` in `layers.cpp` lists behind the states."""
        size = len(states_TD)
        wide = [states_TD.new_empty(size, n) for n in (self.placed, self.heads, self.hidden)]
        half = [states_TD.new_empty(size, n, dtype=self.dtype) for n in (self.width, self.all, 2 * self.inner)]
        return [half[0], wide[0] if self.normed else None, half[1], wide[1], wide[2], half[2]]

    def backward(
        self, slopes_TD: Tensor, once: Once, tables: Sequence[Tensor], kept: Sequence[Tensor | None]
    ) -> Tensor:
        """The states' gradient; the weights' is added to their own."""
        for w in self.weights:
            if w is not None and w.requires_grad and w.grad is None:
                w.grad = torch.zeros_like(w, dtype=torch.float32)
        grads = _array([None if w is None else w.grad for w in self.weights])
        slopes_TD, out_TD = slopes_TD.contiguous(), torch.empty_like(slopes_TD)
        ends = [ctypes.c_void_p(x.data_ptr()) for x in (slopes_TD, out_TD)]
        self._library.layer_backward(
            self._handle, *self._row(once, tables), *ends, _array(kept), grads, torch.get_num_threads()
        )
        return out_TD

    def _row(self, once: Once, tables: Sequence[Tensor]) -> list[ctypes.c_void_p]:
        return [*once.pointers, *(ctypes.c_void_p(t.data_ptr()) for t in tables)]


class _Step(torch.autograd.Function):
    """A layer in torch's graph; `weight` only says that something here learns."""

    @staticmethod
    def forward(
        ctx: Any, states_TD: Tensor, layer: Layer, once: Once, tables: Sequence[Tensor], weight: Tensor
    ) -> Tensor:
        out_TD, kept = layer.forward(states_TD, once, tables)
        ctx.layer, ctx.row = layer, (once, tables)
        ctx.save_for_backward(*kept)
        return out_TD

    @staticmethod
    def backward(ctx: Any, slopes_TD: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        found = ctx.layer.backward(slopes_TD, *ctx.row, ctx.saved_tensors)
        return found if ctx.needs_input_grad[0] else None, None, None, None, None


def _weights(module: Any) -> list[Any]:
    """The tensors in the order of the enumeration in `layers.cpp`, None where the architecture has none."""
    parts = [getattr(module.self_attn, name, None) or getattr(module.mlp, name) for name in PROJECTIONS]
    norms = [getattr(module, name, None) or getattr(module.self_attn, name, None) for name in NORMS]
    return [*(p.weight for p in parts), *(p.bias for p in parts), *(n and n.weight for n in norms)]


def _plain(layer: Any) -> bool:
    """Weights on the processor in modules of torch's own, without adapters, hooks or parts elsewhere."""
    modules = list(layer.modules())
    linear = [m for m in modules if len(getattr(m, "weight", torch.zeros(1)).shape) == 2]
    weights = list(layer.parameters())
    return (
        all(type(m) is nn.Linear for m in linear)
        and not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)
        and all(type(w) is nn.Parameter and w.device.type == "cpu" and w.is_contiguous() for w in weights)
        and {w.dtype for w in weights} <= {torch.float32, torch.bfloat16}
        and all(not w.requires_grad or (w.grad_dtype or w.dtype) == torch.float32 for w in weights)
    )


def _array(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))
