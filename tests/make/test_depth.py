"""A pruned model read again computes what it computed in memory, or the cut is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from spiritsafe.errors import RecipeError
from spiritsafe.make.depth import cuts, layers_left, settings_without, why_no_layers, without_block
from spiritsafe.make.prune import choose_cut, prune

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT: dict[str, Any] = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
}
SAID = {
    "a list by layer": SmolLM3Config(**SIZES),
    "a list by layer, from an interval": SmolLM3Config(**SIZES, no_rope_layer_interval=2),
    "kinds by layer": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=4),
    "numbers of layers": Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, mlp_only_layers=[1]),
    "how many of the first": DeepseekV3Config(**{**SIZES, "num_key_value_heads": 4}, **LATENT, first_k_dense_replace=2),
    "as many end tokens as layers": LlamaConfig(**{**SIZES, "eos_token_id": [1, 2, 3, 4]}),
}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])


def made(config: Any) -> Any:
    """A random model."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("keep", [(0, 1, 3), (0, 2, 3), (0, 3)], ids=str)
@pytest.mark.parametrize("name", SAID)
@torch.no_grad()
def test_a_pruned_model_read_again_is_the_one_that_was_measured(
    name: str, keep: tuple[int, ...], tmp_path: Path
) -> None:
    student = prune(made(SAID[name]), keep)
    student.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert torch.equal(again(IDS).logits, student(IDS).logits)
    assert student.config.eos_token_id == SAID[name].eos_token_id


def test_a_rule_by_the_layers_number_allows_the_cuts_that_it_can_say() -> None:
    model = made(Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=16, decoder_sparse_step=2))
    assert cuts(model, 2) == ([1], "")
    starts, reason = cuts(model, 3)
    assert starts == []
    assert "a rule by the layer's number" in reason
    with pytest.raises(RecipeError, match="a rule by the layer's number"):
        prune(model, (0, 1, 3))
    with pytest.raises(RecipeError, match="no block of 1 layers can be left out"):
        choose_cut(model, [((2, 3), (4, 5))], num_layers=3, pad_id=1)


def test_an_architecture_whose_layers_lie_elsewhere_is_named() -> None:
    model = made(GPT2Config(vocab_size=40, n_embd=32, n_layer=4, n_head=4))
    assert "(gpt2)" in why_no_layers(model)
    with pytest.raises(RecipeError, match=r"--student pruned: its architecture \(gpt2\)"):
        prune(model, (0, 1))


def test_settings_are_back_after_layers_were_left_out() -> None:
    model = made(SAID["numbers of layers"])
    before = model.config.to_dict()
    with layers_left(model, (0, 2, 3)):
        assert model.config.mlp_only_layers == []
        assert model.config.num_hidden_layers == 3
    assert model.config.to_dict() == before
    assert settings_without(model.config, range(4))["mlp_only_layers"] == [1]


def test_a_block_is_left_out_whole() -> None:
    assert without_block(6, 2, 3) == (0, 1, 5)
