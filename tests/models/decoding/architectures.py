"""Tiny random models of several architectures, made in memory."""

from typing import Any

import torch

VOCAB, END = 61, 1
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": END,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAST: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama-untied-scaled": (
        "llama",
        {
            "tie_word_embeddings": False,
            "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 16},
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "llama-one-head-each": ("llama", {"num_key_value_heads": 6, "head_dim": 22}),
    "mistral": ("mistral", {"sliding_window": 64}),
    "qwen2": ("qwen2", {"use_sliding_window": False}),
    "qwen3": ("qwen3", {"head_dim": 80, "num_attention_heads": 5, "num_key_value_heads": 1}),
}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gpt_neox": ("gpt_neox", {}),
    "mistral-short-window": ("mistral", {"sliding_window": 8}),
    "gemma3": ("gemma3_text", {"head_dim": 16, "sliding_window": 64}),
}


def tiny(name: str, seed: int = 0) -> Any:
    """The named model with peaked answers, in evaluation."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, own = (FAST | PLAIN)[name]
    shape = {key: value for key, value in SMALL.items() if kind != "gpt2" or key.endswith(("_id", "vocab_size"))}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**shape, **own}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 1.5 * weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.2)
            if weight.ndim == 1:
                weight.add_(1.0)
    return model.eval()
