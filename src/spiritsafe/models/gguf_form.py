"""What a GGUF file of a dense decoder looks like: names of tensors, RoPE, pre-tokenizers; for reading and writing.

Only byte-level BPE. A pre-tokenizer is a list of steps: `("digits",)` splits digits one by one, `("split",
REGEX)` isolates matches, `("bytes", True)` is GPT-2's own splitting into bytes, `("bytes", False)` none.
"""

import re
from dataclasses import dataclass
from math import pi
from typing import Any

import torch

from spiritsafe.errors import ModelError

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
ROPE_FREQS = "rope_freqs.weight"


@dataclass(frozen=True)
class Architecture:
    """A family: layer tensors beside the common ones, and whether rows of q and k are stored permuted."""

    extra: dict[str, str]
    permuted: bool = False


QKV_BIAS = {f"attn_{x}.bias": f"self_attn.{x}_proj.bias" for x in "qkv"}
QK_NORM = {f"attn_{x}_norm.weight": f"self_attn.{x}_norm.weight" for x in "qk"}
ARCHITECTURES = {
    "llama": Architecture({}, permuted=True),
    "qwen2": Architecture(QKV_BIAS),
    "qwen3": Architecture(QK_NORM),
}


def layer_names(architecture: str) -> dict[str, str]:
    """Tensors of a layer: GGUF's names (`attn_q.weight`) to transformers' (`self_attn.q_proj.weight`)."""
    common = {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in LAYER_NAMES.items()}
    return common | ARCHITECTURES[architecture].extra


@dataclass(frozen=True)
class PreTokenizer:
    """How text is split before byte-level BPE; `whole` takes a piece that is a token as it is (`ignore_merges`)."""

    steps: tuple[tuple[Any, ...], ...]
    whole: bool = False


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPLIT = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGITS = PreTokenizer((("digits",), ("bytes", True)))
# What llama.cpp does if a file names no pre-tokenizer: each pattern splits what the one before left whole.
_UNNAMED = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
)
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer((("bytes", True),)),
    "smollm": _DIGITS,
    "llama-bpe": PreTokenizer((("split", _SPLIT % "{1,3}"), ("bytes", False)), whole=True),
    "qwen2": PreTokenizer((("split", _SPLIT % ""), ("bytes", False))),
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "starcoder": _DIGITS,
    "default": PreTokenizer((*(("split", pattern) for pattern in _UNNAMED), ("bytes", False))),
}


def permute(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of q or k from transformers' order (halves) to llama.cpp's (pairs) for its rotary embedding."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def unpermute(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The inverse of `permute`."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, rows // num_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def llama3_factors(rope: dict[str, Any], head_dim: int) -> torch.Tensor:
    """What Llama 3.1 divides each rotary frequency by, (head_dim / 2): its `rope_freqs.weight`."""
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    factors: torch.Tensor = 1 / ((1 - smooth) / factor + smooth)
    return factors.float()


def rope_of(fields: dict[str, Any], architecture: str, factors: torch.Tensor | None, where: str) -> dict[str, Any]:
    """transformers' `rope_parameters` of a GGUF file. Raises `ModelError` for a scaling that is not known here."""
    held = {name.partition(".rope.")[2]: value for name, value in fields.items() if ".rope." in name}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(fields[f"{architecture}.rope.freq_base"])}
    kind = held.get("scaling.type", "linear" if "scale_linear" in held else "none")
    factor = float(held.get("scaling.factor", held.get("scale_linear", 1.0)))
    if factors is not None:
        return rope | _llama3_of(factors, rope, where)
    if kind == "none" or (kind == "linear" and factor == 1):
        return rope
    if kind == "linear":
        return rope | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        known = {"scaling.type", "scaling.factor", "scaling.original_context_length", "scaling.finetuned"}
        other = sorted(name for name in held if name.startswith("scaling.") and name not in known)
        if other:
            raise ModelError(where, f"sets {architecture}.rope.{other[0]}", "only plain YaRN is read")
        length = held["scaling.original_context_length"]
        return rope | {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
    raise ModelError(where, f"scales RoPE by '{kind}'", "only linear, yarn and Llama 3.1's own are read")


def _llama3_of(factors: torch.Tensor, rope: dict[str, Any], where: str) -> dict[str, Any]:
    """Llama 3.1's setting that gives exactly these factors (all its releases differ in `factor` alone)."""
    found = {"rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    found["original_max_position_embeddings"] = 8192
    if not torch.allclose(llama3_factors(rope | found, 2 * len(factors)), factors, rtol=1e-3):
        raise ModelError(where, f"{ROPE_FREQS} is not Llama 3.1's scaling", "transformers has no such RoPE")
    return found


def split_layer(name: str) -> tuple[int, str] | None:
    """(layer, rest) of `blk.3.attn_q.weight` or `model.layers.3.self_attn.q_proj.weight`; None for others."""
    found = re.fullmatch(r"(?:blk|model\.layers)\.(\d+)\.(.+)", name)
    return (int(found[1]), found[2]) if found else None
