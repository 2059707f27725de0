"""Decoding steps of a Llama-family model in C++, on weights packed from the training ones.

Rows of one call may be any tokens of any slots: a decoding step, a prefill, a batch to score. Suffixes
name axes: M rows, P rows whose logits are wanted, V vocabulary.
"""

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiritsafe.errors import ModelError
from spiritsafe.make.rollout.race import pointer
from spiritsafe.native import native

SOURCE = Path(__file__).with_name("steps.cpp")
FAMILY = ("llama", "mistral", "qwen2", "qwen3")
ROPE = ("default", "linear", "llama3", "yarn")  # those whose angles do not depend on the sequence's length
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_ROWS = 128
KEYS = 16  # positions in a block of the cache's keys


def fits(model: Any, capacity: int) -> bool:
    """Whether `Steps` computes what this model computes, for sequences of up to `capacity` tokens."""
    config = model.config
    if config.model_type not in FAMILY or native(SOURCE, torch=True) is None:
        return False
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ()) or config.model_type == "mistral"
    window = getattr(config, "sliding_window", None) if sliding else None
    rope = config.rope_parameters
    return (
        config.hidden_act == "silu"
        and rope.get("rope_type", "default") in ROPE
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and (window is None or window >= capacity)
        and config.hidden_size % 2 == 0
        and config.intermediate_size % 16 == 0
        and all(weight.device.type == "cpu" for weight in model.parameters())
    )


class Steps:
    """A model's steps on a static cache of `slots` sequences with up to `capacity` tokens each.

    `half` packs weights, keys and values as bfloat16; sums stay float32. The weights are those at the
    last `refresh()`, which also forgets all prefixes. Logits are overwritten by the next call.
    """

    def __init__(self, model: Any, *, slots: int, capacity: int, half: bool) -> None:
        self.model, self.slots = model, slots
        self.capacity = -(-capacity // KEYS) * KEYS
        config = model.config
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        sizes = [config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads]
        sizes += [config.num_key_value_heads, dim, config.vocab_size, slots, self.capacity, MAX_ROWS]
        library = native(SOURCE, torch=True)
        assert library, "asked of `fits`"
        library.model_new.restype = ctypes.c_void_p
        self._library, shape = library, np.array([*sizes, config.model_type == "qwen3"], np.int64)
        made = library.model_new(pointer(shape), ctypes.c_double(config.rms_norm_eps), int(half))
        if made is None:
            raise ModelError("rollout", "no memory for the cache", "take fewer slots or a smaller capacity")
        self._handle = ctypes.c_void_p(made)
        weakref.finalize(self, library.model_free, self._handle)
        self._logits_PV = torch.empty(MAX_ROWS, config.vocab_size)
        self._held: list[tuple[int, ...] | None] = [None] * slots
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Pack the model's weights as they are now."""
        kept = [weight for layer in self._core().layers for weight in _layer_weights(layer)]
        kept += self._last_weights()
        given = (ctypes.c_void_p * len(kept))(*[None if w is None else w.data_ptr() for w in kept])
        self._library.model_load(self._handle, given, torch.get_num_threads())
        self._embedding = kept[-5]  # read in place at each step
        self._tables = kept[-2:]
        self._held = [None] * self.slots

    def forward(
        self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int], picked: Sequence[int]
    ) -> Tensor:
        """Logits (P, V) in float32 of the `picked` rows; at most `MAX_ROWS` rows. Writes all rows to the cache."""
        arrays = [np.array(values, np.int64) for values in (tokens, slots, positions, picked)]
        self._library.model_step(
            self._handle,
            ctypes.c_long(len(tokens)),
            *map(pointer, arrays[:3]),
            ctypes.c_long(len(picked)),
            pointer(arrays[3]),
            ctypes.c_void_p(self._logits_PV.data_ptr()),
            torch.get_num_threads(),
        )
        return self._logits_PV[: len(picked)]

    def seat(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> None:
        """Have each (slot, prefix) begin with its prefix: kept, copied from a slot that has it, or prefilled."""
        fresh: dict[int, tuple[int, ...]] = {}
        later: list[tuple[int, int, int]] = []
        for slot, prefix in wanted:
            if self._held[slot] == prefix:
                continue
            source = self._held.index(prefix) if prefix in self._held else None
            self._held[slot] = prefix
            if source is None:
                fresh[slot] = prefix
            elif source in fresh:
                later.append((source, slot, len(prefix)))
            else:
                self._copy(source, slot, len(prefix))
        rows = [(token, slot, at) for slot, prefix in fresh.items() for at, token in enumerate(prefix)]
        for start in range(0, len(rows), MAX_ROWS):
            tokens, slots, positions = zip(*rows[start : start + MAX_ROWS], strict=True)
            self.forward(tokens, slots, positions, ())
        for source, slot, length in later:
            self._copy(source, slot, length)

    def _copy(self, source: int, slot: int, length: int) -> None:
        self._library.model_copy(self._handle, *map(ctypes.c_long, (source, slot, length)))

    def _core(self) -> Any:
        whole = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return whole.model

    def _last_weights(self) -> list[Tensor | None]:
        core = self._core()
        positions = torch.arange(self.capacity)[None]
        cosines, sines = core.rotary_emb(torch.zeros(1), positions)
        half = cosines.shape[-1] // 2
        tables = [table[0, :, :half].float().contiguous() for table in (cosines, sines)]
        first, last = core.embed_tokens, self.model.get_output_embeddings()
        tied = last.weight is first.weight and not any(hasattr(module, "base_layer") for module in (first, last))
        embedding = _weight(first)
        return [embedding, _weight(core.norm), embedding if tied else _weight(last), *tables]


def _layer_weights(layer: Any) -> list[Tensor | None]:
    """A layer's tensors in the order of the enumeration in `steps.cpp`."""
    attention = layer.self_attn
    linears = [getattr(attention, name, None) or getattr(layer.mlp, name) for name in PROJECTIONS]
    biases = [getattr(getattr(linear, "base_layer", linear), "bias", None) for linear in linears]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    floats = [None if bias is None else bias.float().contiguous() for bias in biases]
    return [*map(_weight, linears), *floats, *(norm and _weight(norm) for norm in norms)]


def _weight(module: Any) -> Tensor:
    """A module's weight in float32, with the adapters that are active and not yet merged (peft)."""
    base = getattr(module, "base_layer", module)
    weight: Tensor = base.weight
    if base is not module and not module.merged and not module.disable_adapters:
        for name in module.active_adapters:
            if name in module.lora_A:
                weight = weight + module.get_delta_weight(name)
    return weight.detach().float().contiguous()
