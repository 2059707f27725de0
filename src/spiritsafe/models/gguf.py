"""A GGUF file -> a Hugging Face directory with safetensors, made once.

Weights are dequantised to float32. Dense llama, qwen2 and qwen3 with byte-level BPE are read, RoPE scaling
included; other architectures and tokenizers are refused.
"""

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
from spiritsafe.models.quiet import quieten

CONTROL, USER_DEFINED = 3, 4


def convert_gguf(source: Path, target: Path) -> None:
    """Write `source` as a Hugging Face model directory. Raises `ModelError` naming what does not fit."""
    quieten()
    try:
        model, tokenizer = _parts(source)
    except KeyError as error:
        raise ModelError(str(source), f"lacks the field {error}", "fetch it again") from None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _parts(source: Path) -> tuple[Any, Any]:
    reader = _open(source)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = fields.get("general.architecture")
    if architecture not in ARCHITECTURES or fields.get("tokenizer.ggml.model") != "gpt2":
        found = f"{architecture}/{fields.get('tokenizer.ggml.model')}"
        known = ", ".join(f"{name}/gpt2" for name in ARCHITECTURES)
        raise ModelError(str(source), f"architecture/tokenizer {found}", f"only {known} GGUF files are read")
    if fields["tokenizer.ggml.pre"] not in PRE_TOKENIZERS:
        what = f"pre-tokenizer {fields['tokenizer.ggml.pre']}"
        raise ModelError(str(source), what, f"only {', '.join(PRE_TOKENIZERS)} are read")
    return _model(fields, _weights(reader, fields, source), source), _tokenizer(fields)


def _open(source: Path) -> Any:
    from gguf import GGUFReader

    if not source.is_file():
        raise ModelError(str(source), "no such file")
    with source.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(str(source), "is not a GGUF file")
    try:
        return GGUFReader(source)
    except (ValueError, IndexError, OverflowError, KeyError) as error:
        raise ModelError(str(source), f"is truncated or broken ({error})", "fetch it again") from None


def _weights(reader: Any, fields: dict[str, Any], source: Path) -> dict[str, torch.Tensor]:
    """All tensors by transformers' names; the RoPE's factors keep theirs."""
    from gguf import dequantize

    architecture = fields["general.architecture"]
    heads = {"attn_q.weight": "head_count", "attn_k.weight": "head_count_kv"}
    names, size = layer_names(architecture), source.stat().st_size
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise ModelError(str(source), f"is truncated in tensor {tensor.name}", "fetch it again")
        try:
            weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        except NotImplementedError:
            raise ModelError(str(source), f"{tensor.name} is stored as {tensor.tensor_type.name}") from None
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
            raise ModelError(str(source), f"unknown tensor {tensor.name}")
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
    if (turn := fields.get("tokenizer.ggml.eot_token_id")) not in (None, config.eos_token_id):
        model.generation_config.eos_token_id = [config.eos_token_id, turn]
    return model


def _config(fields: dict[str, Any], weights: dict[str, torch.Tensor], source: Path) -> Any:
    from transformers import AutoConfig

    name = fields["general.architecture"]
    hidden, heads = fields[f"{name}.embedding_length"], fields[f"{name}.attention.head_count"]
    head_dim = fields.get(f"{name}.attention.key_length", hidden // heads)
    if fields.get(f"{name}.rope.dimension_count", head_dim) != head_dim:
        raise ModelError(str(source), "turns only part of each head by RoPE", "such models are not read")
    end = fields["tokenizer.ggml.eos_token_id"]
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
    added = [(t, kind) for t, kind in zip(tokens, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
    core.add_tokens([AddedToken(t, normalized=False, special=kind == CONTROL) for t, kind in added])
    end = fields["tokenizer.ggml.eos_token_id"]
    first = fields.get("tokenizer.ggml.bos_token_id")
    if first is not None and fields.get("tokenizer.ggml.add_bos_token", pre.whole):  # Llama 3's default is true
        core.post_processor = _beginning_with(tokens[first], first)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=None if first is None else tokens[first],
        eos_token=tokens[end],
        pad_token=tokens[fields.get("tokenizer.ggml.padding_token_id", end)],
    )
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer


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
