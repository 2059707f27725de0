"""Decoding steps of a Llama-family model in C++, on weights packed from the model's own.

Rows of one call may be any tokens of any slots: a decoding step, a prefill, a batch to score. Suffixes
name axes: M rows, P rows whose logits are wanted, V vocabulary.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiritsafe.errors import ModelError
from spiritsafe.models.decoding.sample_native import pointer
from spiritsafe.native import native

SOURCE = Path(__file__).parents[2] / "make" / "rollout" / "steps.cpp"
FAMILY = ("llama", "mistral", "qwen2", "qwen3")
ROPE = ("default", "linear", "llama3", "yarn")  # those whose angles do not depend on the sequence's length
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_ROWS = 128
KEYS = 16  # positions in a block of the cache's keys
ROUND = 16  # tokens: a smaller common beginning is read again rather than waited for
NO_ROOM = ("decoder", "no memory for keys and values", "take a smaller batch or shorter answers")


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


class Packed:
    """A model's weights laid out for `Steps`, as they were at the last `refresh()`; any number of `Steps` read them.

    `half` packs them as bfloat16, else they are float32.
    """

    def __init__(self, model: Any, *, half: bool) -> None:
        self.model, self.half = model, half
        library = native(SOURCE, torch=True)
        assert library, "asked of `fits`"
        library.weights_new.restype = ctypes.c_void_p
        self._library = library
        made = library.weights_new(pointer(sizes_of(model)), ctypes.c_double(model.config.rms_norm_eps), int(half))
        if made is None:
            raise ModelError("decoder", "no memory for its copy of the weights", "take a smaller model")
        self.handle = ctypes.c_void_p(made)
        weakref.finalize(self, library.weights_free, self.handle)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Pack the model's weights as they are now."""
        core = core_of(self.model)
        kept = [weight for layer in core.layers for weight in _layer_weights(layer)]
        kept += self._last_weights(core)
        given = (ctypes.c_void_p * len(kept))(*[None if w is None else w.data_ptr() for w in kept])
        self._library.weights_load(self.handle, given, torch.get_num_threads())
        self._embedding = kept[-3]  # read in place at each step

    def _last_weights(self, core: Any) -> list[Tensor]:
        first = core.embed_tokens
        last = self.model.get_output_embeddings()
        tied = last.weight is first.weight and not any(hasattr(module, "base_layer") for module in (first, last))
        embedding = _weight(first)
        return [embedding, _weight(core.norm), embedding if tied else _weight(last)]


class Steps:
    """A model's steps on a cache of `slots` sequences, with room for `capacity` tokens each until it is given more.

    Keys and values have the weights' type; sums stay float32. Logits are overwritten by the next call.
    """

    def __init__(self, packed: Packed, *, slots: int, capacity: int) -> None:
        self.packed, self.slots = packed, slots
        model, library = packed.model, native(SOURCE, torch=True)
        assert library, "asked of `fits`"
        sizes = sizes_of(model, slots)
        library.model_new.restype = ctypes.c_void_p
        self._library = library
        made = library.model_new(
            pointer(sizes), ctypes.c_double(model.config.rms_norm_eps), int(packed.half), packed.handle
        )
        if made is None:
            raise ModelError(*NO_ROOM)
        self._handle = ctypes.c_void_p(made)
        weakref.finalize(self, library.model_free, self._handle)
        self._logits_PV = torch.empty(MAX_ROWS, model.config.vocab_size)
        self._held: list[tuple[int, ...]] = [()] * slots
        self.capacity = 0
        self.resize(capacity)

    @torch.no_grad()
    def resize(self, capacity: int) -> None:
        """Give each slot room for so many tokens; what they hold stays. Raises `ModelError` without the memory."""
        capacity = -(-capacity // KEYS) * KEYS
        cosines, sines = core_of(self.packed.model).rotary_emb(torch.zeros(1), torch.arange(capacity)[None])
        half = cosines.shape[-1] // 2
        tables = [table[0, :, :half].float().contiguous() for table in (cosines, sines)]
        places = [ctypes.c_void_p(table.data_ptr()) for table in tables]
        if not self._library.model_resize(self._handle, ctypes.c_long(capacity), *places):
            raise ModelError(*NO_ROOM)
        self.capacity = capacity
        self._tables = tables

    def refresh(self) -> None:
        """Take the model's weights as they are now, and forget what the slots held."""
        self.packed.refresh()
        self._held = [()] * self.slots

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
        """Have each (slot, prefix) begin with its prefix; what a slot holds of it already is copied, not read again."""
        plan = self._plan(wanted)
        for level in range(max((source.level for _, source in plan), default=0) + 1):
            now = [(slot, source) for slot, source in plan if source.level == level]
            for slot, source in now:
                if source.slot != slot and source.length:
                    self._copy(source.slot, slot, source.length)
            self._read([(slot, at) for slot, source in now for at in range(source.length, len(self._held[slot]))])

    def _plan(self, wanted: Sequence[tuple[int, tuple[int, ...]]]) -> list[tuple[int, "_Source"]]:
        """From where each slot takes the beginning of its prefix."""
        levels = dict.fromkeys(range(self.slots), -1)
        for slot, _ in wanted:
            levels.pop(slot)  # what it held is overwritten: of these only the slot itself may still read it
        plan: list[tuple[int, _Source]] = []
        for slot, prefix in wanted:
            sources = [_Source(slot, common(self._held[slot], prefix), 0)]  # first: of equal ones it is not copied
            for other, level in levels.items():
                sources.append(_Source(other, common(self._held[other], prefix), level + 1))
            best = max(sources, key=_Source.gain)
            plan.append((slot, best))
            levels[slot] = best.level
            self._held[slot] = prefix
        return plan

    def _read(self, places: Sequence[tuple[int, int]]) -> None:
        """Prefill (slot, position)s, a slot's in order."""
        for start in range(0, len(places), MAX_ROWS):
            part = places[start : start + MAX_ROWS]
            tokens = [self._held[slot][at] for slot, at in part]
            self.forward(tokens, [slot for slot, _ in part], [at for _, at in part], ())

    def _copy(self, source: int, slot: int, length: int) -> None:
        self._library.model_copy(self._handle, *map(ctypes.c_long, (source, slot, length)))


@dataclass(frozen=True)
class _Source:
    """A slot whose first `length` tokens are taken, in the `level`-th round of copies and reads."""

    slot: int
    length: int
    level: int

    def gain(self) -> int:
        """Tokens that are not read again; a round more has to be worth its smaller batch."""
        return self.length - ROUND * self.level


def common(held: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """How many tokens two sequences begin with in common."""
    low = 0
    high = min(len(held), len(wanted))
    while low < high:  # by halves: a slice is compared many times as fast as tokens one by one
        middle = (low + high + 1) // 2
        if held[low:middle] == wanted[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def core_of(model: Any) -> Any:
    """The part of a causal language model that holds embeddings, layers and the last norm."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.model


def sizes_of(model: Any, slots: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The numbers of `Shape` in the C++ file; the cache's length is given to `resize`."""
    config = model.config
    sizes = [config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads]
    sizes += [config.num_key_value_heads, head_dim(config), config.vocab_size, slots, 0, MAX_ROWS]
    return np.array([*sizes, config.model_type == "qwen3"], np.int64)


def head_dim(config: Any) -> int:
    """Width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


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
