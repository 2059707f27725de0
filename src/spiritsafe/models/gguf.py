"""A GGUF file -> a Hugging Face directory with safetensors, made once.

Weights are dequantised to float32. Dense llama, qwen2 and qwen3 with byte-level BPE are read, RoPE scaling
included; other architectures and tokenizers are refused. Fields that llama.cpp can do without have its defaults here,
and an answer ends where it ends there: at each token that is known by its name to end a turn or a text.
"""

from math import isfinite
from pathlib import Path
from typing import Any

import torch

from spiritsafe.errors import ModelError
from spiritsafe.models.gguf_form import (
    ARCHITECTURES,
    PRE_TOKENIZERS,
    ROPE_FREQS,
    TOP_NAMES,
    layer_names,
    rope_of,
    split_layer,
    unpermute,
)
from spiritsafe.models.gguf_read import Header, read_header, stored_bytes
from spiritsafe.models.quiet import quieten
from spiritsafe.models.template import first_line, one_line

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# What llama.cpp takes for the end of an answer, whatever the file says of ends.
ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
)  # fmt: skip
MARKS = ("bos_token_id", "eos_token_id", "eot_token_id", "padding_token_id")
FREQ_BASE = 10_000.0
MOST = 2**31


def convert_gguf(source: Path, target: Path) -> None:
    """Write `source` as a Hugging Face model directory. Raises `ModelError` naming what does not fit."""
    quieten()
    try:
        model, tokenizer = _parts(source)
    except ModelError as error:  # it may name what the file names
        raise ModelError(error.where, one_line(error.what), error.hint) from None
    except KeyError as error:
        raise ModelError(str(source), f"lacks the field {error}", "convert it again") from None
    except Exception as error:  # of what its fields made transformers, tokenizers or numpy do
        raise ModelError(str(source), f"cannot be read ({first_line(error)})", "convert it again") from None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _parts(source: Path) -> tuple[Any, Any]:
    header = read_header(source)
    fields = header.fields
    architecture = fields.get("general.architecture")
    if fields.get("general.type", "model") != "model":
        raise ModelError(
            str(source), f"is no model but of the type {fields['general.type']!r}", "name the model's file"
        )
    if architecture not in ARCHITECTURES or fields.get("tokenizer.ggml.model") != "gpt2":
        found = f"{architecture}/{fields.get('tokenizer.ggml.model')}"
        known = ", ".join(f"{name}/gpt2" for name in ARCHITECTURES)
        raise ModelError(str(source), f"architecture/tokenizer {found}", f"only {known} GGUF files are read")
    fields.setdefault("tokenizer.ggml.pre", "default")
    if fields["tokenizer.ggml.pre"] not in PRE_TOKENIZERS:
        what = f"pre-tokenizer {fields['tokenizer.ggml.pre']}"
        raise ModelError(str(source), what, f"only {', '.join(PRE_TOKENIZERS)} are read")
    fields.setdefault(f"{architecture}.rope.freq_base", FREQ_BASE)
    fields.setdefault("tokenizer.ggml.token_type", [NORMAL] * len(fields["tokenizer.ggml.tokens"]))
    _check_tokens(fields, source)
    _check_numbers(fields, header, source)
    return _model(fields, _weights(header, source), source), _tokenizer(fields)


def _wrong(source: Path, name: str, value: Any, wanted: str) -> ModelError:
    return ModelError(str(source), f"its field {name} is {str(value)[:60]!r}, expected {wanted}", "convert it again")


def _check_tokens(fields: dict[str, Any], source: Path) -> None:
    """Raises `ModelError` if the tokenizer's fields are none."""
    tokens = fields["tokenizer.ggml.tokens"]
    for name, kind in (("tokens", str), ("merges", str), ("token_type", int)):
        value = fields[f"tokenizer.ggml.{name}"]
        if not isinstance(value, list) or not all(type(v) is kind for v in value):
            raise _wrong(source, f"tokenizer.ggml.{name}", value, f"a list of {kind.__name__}")
    if not tokens or len(set(tokens)) < len(tokens) or len(fields["tokenizer.ggml.token_type"]) != len(tokens):
        raise _wrong(source, "tokenizer.ggml.tokens", tokens, "different tokens, with a type each")
    if broken := [merge for merge in fields["tokenizer.ggml.merges"] if merge.count(" ") != 1]:
        raise _wrong(source, "tokenizer.ggml.merges", broken[0], "two tokens with a blank between")
    for mark in MARKS:
        name = f"tokenizer.ggml.{mark}"
        if name in fields and (type(fields[name]) is not int or not 0 <= fields[name] < len(tokens)):
            raise _wrong(source, name, fields[name], f"a token below {len(tokens)}")
    for name, value in fields.items():
        if name.startswith("tokenizer.chat_template") and name != "tokenizer.chat_templates" and type(value) is not str:
            raise _wrong(source, name, value, "a text")


def _check_numbers(fields: dict[str, Any], header: Header, source: Path) -> None:
    """Raises `ModelError` unless the architecture's numbers are those of the tensors that are there."""
    name = fields["general.architecture"]
    heads, kv_heads = f"{name}.attention.head_count", f"{name}.attention.head_count_kv"
    fields.setdefault(kv_heads, fields[heads])
    whole = [f"{name}.{key}" for key in ("block_count", "context_length", "embedding_length", "feed_forward_length")]
    for key in (*whole, heads, kv_heads):
        if type(fields[key]) is not int or not 0 < fields[key] < MOST:
            raise _wrong(source, key, fields[key], "a whole number above 0")
    real = [key for key, value in fields.items() if key.startswith(f"{name}.rope.") and type(value) in (int, float)]
    for key in (*real, f"{name}.attention.layer_norm_rms_epsilon"):
        if not isinstance(fields[key], int | float) or not isfinite(fields[key]) or fields[key] <= 0:
            raise _wrong(source, key, fields[key], "a number above 0")
    layers = {part[0] for tensor in header.tensors if (part := split_layer(tensor.name))}
    if (len(layers), max(layers, default=0) + 1) != (fields[whole[0]], fields[whole[0]]):
        raise _wrong(source, whole[0], fields[whole[0]], f"{len(layers)}, the layers that are there")
    if fields[heads] % fields[kv_heads]:
        raise _wrong(source, kv_heads, fields[kv_heads], f"a divisor of {fields[heads]}")
    width, head_dim = fields[whole[2]], _head_dim(fields)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    wanted = {
        "token_embd.weight": (len(fields["tokenizer.ggml.tokens"]), width),
        "blk.0.attn_q.weight": (fields[heads] * head_dim, width),
        "blk.0.attn_k.weight": (fields[kv_heads] * head_dim, width),
        "blk.0.ffn_up.weight": (fields[whole[3]], width),
    }
    for tensor, shape in wanted.items():
        if shapes.get(tensor, shape) != shape or head_dim < 2 or head_dim % 2:
            what = f"shapes do not fit: {tensor} is {shapes.get(tensor)}, and its fields say {shape}"
            raise ModelError(str(source), what, "convert it again")


def _head_dim(fields: dict[str, Any]) -> int:
    name = fields["general.architecture"]
    given = fields.get(f"{name}.attention.key_length")
    return int(given) if given else fields[f"{name}.embedding_length"] // fields[f"{name}.attention.head_count"]


def _weights(header: Header, source: Path) -> dict[str, torch.Tensor]:
    """All tensors by transformers' names; the RoPE's factors keep theirs."""
    from gguf import GGMLQuantizationType, dequantize

    fields = header.fields
    architecture = fields["general.architecture"]
    heads = {"attn_q.weight": "head_count", "attn_k.weight": "head_count_kv"}
    names = layer_names(architecture)
    weights: dict[str, torch.Tensor] = {}
    for tensor in header.tensors:
        kind = GGMLQuantizationType(tensor.kind)
        rows = stored_bytes(source, tensor).reshape(*tensor.shape[:-1], -1)
        try:
            weight = torch.from_numpy(dequantize(rows, kind).reshape(tensor.shape).copy())
        except NotImplementedError:
            raise ModelError(str(source), f"{tensor.name} is stored as {kind.name}", "convert it again") from None
        part = split_layer(tensor.name)
        if part and part[1] in names:
            if ARCHITECTURES[architecture].permuted and part[1] in heads:
                weight = unpermute(weight, fields[f"{architecture}.attention.{heads[part[1]]}"])
            weights[f"model.layers.{part[0]}.{names[part[1]]}"] = weight
        elif tensor.name in TOP_NAMES:
            weights[TOP_NAMES[tensor.name]] = weight
        elif tensor.name == ROPE_FREQS:
            weights[ROPE_FREQS] = weight
        else:
            raise ModelError(str(source), f"unknown tensor {tensor.name}", "such models are not read")
    return weights


def _model(fields: dict[str, Any], weights: dict[str, torch.Tensor], source: Path) -> Any:
    from transformers import AutoModelForCausalLM

    config = _config(fields, weights, source)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    try:
        found = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelError(str(source), f"shapes do not fit ({str(error).splitlines()[-1].strip()})") from None
    missing = sorted(set(found.missing_keys) - ({"lm_head.weight"} if config.tie_word_embeddings else set()))
    if missing:
        raise ModelError(str(source), f"lacks the tensors of {', '.join(missing[:3])}")
    model.tie_weights()
    ends = _ends(fields)
    model.generation_config.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    return model


def _ends(fields: dict[str, Any]) -> list[int]:
    """The tokens that end an answer: the file's own, then those known by name."""
    tokens = fields["tokenizer.ggml.tokens"]
    own = [fields.get(f"tokenizer.ggml.{mark}") for mark in ("eos_token_id", "eot_token_id")]
    named = [i for i, token in enumerate(tokens) if token in ENDS]
    return list(dict.fromkeys(i for i in (*own, *named) if i is not None))


def _config(fields: dict[str, Any], weights: dict[str, torch.Tensor], source: Path) -> Any:
    from transformers import AutoConfig

    name = fields["general.architecture"]
    hidden, heads = fields[f"{name}.embedding_length"], fields[f"{name}.attention.head_count"]
    head_dim = _head_dim(fields)
    if fields.get(f"{name}.rope.dimension_count", head_dim) != head_dim:
        raise ModelError(str(source), "turns only part of each head by RoPE", "such models are not read")
    end = next(iter(_ends(fields)), None)
    return AutoConfig.for_model(
        name,
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=hidden,
        intermediate_size=fields[f"{name}.feed_forward_length"],
        num_hidden_layers=fields[f"{name}.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=fields[f"{name}.attention.head_count_kv"],
        head_dim=head_dim,
        max_position_embeddings=fields[f"{name}.context_length"],
        rms_norm_eps=round(float(fields[f"{name}.attention.layer_norm_rms_epsilon"]), 12),
        rope_parameters=rope_of(fields, name, weights.pop(ROPE_FREQS, None), str(source)),
        tie_word_embeddings="lm_head.weight" not in weights,
        bos_token_id=fields.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=end,
        pad_token_id=fields.get("tokenizer.ggml.padding_token_id", end),
    )


def _tokenizer(fields: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    pre = PRE_TOKENIZERS[fields["tokenizer.ggml.pre"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    core = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre.whole))
    core.pre_tokenizer = splitting(pre.steps)
    core.decoder = decoders.ByteLevel()
    ends = {tokens[i] for i in _ends(fields)}
    kinds = [(t, CONTROL if t in ends else kind) for t, kind in zip(tokens, types, strict=True)]
    added = [(t, kind) for t, kind in kinds if kind in (CONTROL, USER_DEFINED)]
    core.add_tokens([AddedToken(t, normalized=False, special=kind == CONTROL) for t, kind in added])
    end = next(iter(_ends(fields)), None)
    pad = fields.get("tokenizer.ggml.padding_token_id", end)
    first = fields.get("tokenizer.ggml.bos_token_id")
    if first is not None and fields.get("tokenizer.ggml.add_bos_token", pre.whole):  # Llama 3's default is true
        core.post_processor = _beginning_with(tokens[first], first)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=None if first is None else tokens[first],
        eos_token=None if end is None else tokens[end],
        pad_token=None if pad is None else tokens[pad],
    )
    tokenizer.chat_template = _templates(fields)
    return tokenizer


def _templates(fields: dict[str, Any]) -> str | dict[str, str] | None:
    """The chat template; with its name each where there are several."""
    start, own = "tokenizer.chat_template.", fields.get("tokenizer.chat_template")
    named = {name.removeprefix(start): text for name, text in fields.items() if name.startswith(start)}
    return ({} if own is None else {"default": own}) | named if named else own


def splitting(steps: tuple[tuple[Any, ...], ...]) -> Any:
    """The `tokenizers` pre-tokenizer of `gguf_form.PreTokenizer.steps`."""
    from tokenizers import Regex, pre_tokenizers

    made: list[Any] = []
    for kind, *given in steps:
        if kind == "digits":
            made.append(pre_tokenizers.Digits(individual_digits=True))
        elif kind == "split":
            made.append(pre_tokenizers.Split(Regex(given[0]), "isolated"))
        else:
            made.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=given[0]))
    return pre_tokenizers.Sequence(made)


def _beginning_with(token: str, token_id: int) -> Any:
    from tokenizers import processors

    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, token_id)]
    )
