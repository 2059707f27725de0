"""A GGUF file of the llama architecture -> a Hugging Face directory with safetensors, made once.

Weights are dequantised to float32. llama.cpp stores the rows of q and k permuted for its rotary
embedding; they are put back. Other architectures and tokenizers than byte-level BPE are refused.
"""

import re
from pathlib import Path
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
# llama.cpp's pre-tokenizers that are known here: whether digits are split one by one before byte-level BPE.
DIGIT_SPLITTING = {"gpt-2": False, "smollm": True, "refact": True, "command-r": True, "starcoder": True}


def convert_gguf(source: Path, target: Path) -> None:
    """Write `source` as a Hugging Face model directory. Raises `ModelError` naming what does not fit."""
    try:
        model, tokenizer = _parts(source)
    except KeyError as error:
        raise ModelError(str(source), f"lacks the field {error}", "fetch it again") from None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _parts(source: Path) -> tuple[Any, Any]:
    reader = _open(source)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    if fields.get("general.architecture") != "llama" or fields.get("tokenizer.ggml.model") != "gpt2":
        found = f"{fields.get('general.architecture')}/{fields.get('tokenizer.ggml.model')}"
        raise ModelError(str(source), f"architecture/tokenizer {found}", "only llama/gpt2 GGUF files are read")
    if fields["tokenizer.ggml.pre"] not in DIGIT_SPLITTING:
        what = f"pre-tokenizer {fields['tokenizer.ggml.pre']}"
        raise ModelError(str(source), what, f"only {', '.join(DIGIT_SPLITTING)} are read")
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
    from gguf import dequantize

    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    size = source.stat().st_size
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise ModelError(str(source), f"is truncated in tensor {tensor.name}", "fetch it again")
        try:
            weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        except NotImplementedError:
            raise ModelError(str(source), f"{tensor.name} is stored as {tensor.tensor_type.name}") from None
        part = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
        if part and part[2] in LAYER_NAMES:
            if part[2] in heads:
                weight = _unpermute(weight, heads[part[2]])
            weights[f"model.layers.{part[1]}.{LAYER_NAMES[part[2]]}.weight"] = weight
        elif tensor.name in TOP_NAMES:
            weights[TOP_NAMES[tensor.name]] = weight
        else:
            raise ModelError(str(source), f"unknown tensor {tensor.name}")
    return weights


def _unpermute(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.reshape(num_heads, rows // num_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _model(fields: dict[str, Any], weights: dict[str, torch.Tensor], source: Path) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    tied = "lm_head.weight" not in weights
    config = LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 12),
        rope_theta=float(fields["llama.rope.freq_base"]),
        tie_word_embeddings=tied,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields.get("tokenizer.ggml.padding_token_id", fields["tokenizer.ggml.eos_token_id"]),
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    try:
        found = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelError(str(source), f"shapes do not fit ({str(error).splitlines()[-1].strip()})") from None
    missing = sorted(set(found.missing_keys) - ({"lm_head.weight"} if tied else set()))
    if missing:
        raise ModelError(str(source), f"lacks the tensors of {', '.join(missing[:3])}")
    model.tie_weights()
    return model


def _tokenizer(fields: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if DIGIT_SPLITTING[fields["tokenizer.ggml.pre"]]:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(
        [AddedToken(t, normalized=False) for t, kind in zip(tokens, types, strict=True) if kind == 3]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=tokens[fields["tokenizer.ggml.eos_token_id"]],
        pad_token=tokens[fields.get("tokenizer.ggml.padding_token_id", fields["tokenizer.ggml.eos_token_id"])],
    )
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    return tokenizer
