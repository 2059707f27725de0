"""Logits of final hidden states beside the models' own, for architectures that do more than multiply by a head."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
)

from spiritsafe.errors import ModelError
from spiritsafe.models.decoding.padded import Row, decode
from spiritsafe.models.decoding.scoring import score_pairs
from spiritsafe.models.logits import LogitForm, logit_form, logits_of
from spiritsafe.record import Sampling

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
SMALL: dict[str, Any] = {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
OPT: dict[str, Any] = {"ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 64}
MODELS: dict[str, tuple[Any, LogitForm]] = {
    "llama": (LlamaConfig(**SIZES), LogitForm()),
    "gemma2, capped": (Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0), LogitForm(cap=3.0)),
    "granite, divided": (GraniteConfig(**SIZES, logits_scaling=8.0, embedding_multiplier=12.0), LogitForm(0.125)),
    "cohere, multiplied": (CohereConfig(**SIZES, logit_scale=0.25), LogitForm(0.25)),
    "phi, with a bias": (PhiConfig(**SIZES), LogitForm()),
    "gptj, with a bias": (GPTJConfig(**SMALL, rotary_dim=4), LogitForm()),
    "gpt2": (GPT2Config(**SMALL), LogitForm()),
    "opt, whose head asks a decoder": (OPTConfig(**SIZES, **OPT), LogitForm()),
}
CONV = ["conv", "full_attention"]
MODELS["lfm2, whose states cannot be shared out"] = (
    Lfm2Config(**SIZES, layer_types=CONV, num_key_value_heads=2, block_multiple_of=8),
    LogitForm(),
)
PAIRS = [((3, 1, 4, 1, 5), (9, 2, 6)), ((2, 7), (1, 8, 2, 8)), ((2, 7), (5,))]


def made(config: Any, seed: int = 0) -> Any:
    """A random model whose vectors and biases count too."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0, 0.5) if weight.ndim > 1 else weight.add_(0.3 * torch.randn_like(weight))
            if name.endswith("bias"):
                weight.normal_(0, 0.5)
    return model


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_logits_of_hidden_states_are_the_models_own(name: str) -> None:
    config, form = MODELS[name]
    model, ids_1T = made(config), torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    assert logit_form(model) == form
    states_1TD = model.get_decoder()(input_ids=ids_1T, use_cache=False).last_hidden_state
    torch.testing.assert_close(logits_of(model, states_1TD), model(input_ids=ids_1T).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_scores_are_the_log_probabilities_of_the_whole_model(name: str) -> None:
    model = made(MODELS[name][0])
    scores = score_pairs(model, PAIRS, pad_id=0, top_k=3, batch=3)
    for (prompt, answer), found in zip(PAIRS, scores, strict=True):
        logits_TV = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        wanted_T = logits_TV.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found.logprobs), wanted_T, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_answers_without_a_shared_cache_are_those_of_the_whole_model() -> None:
    model = made(MODELS["lfm2, whose states cannot be shared out"][0])
    rows = [Row(prompt, Sampling(temperature=0.0)) for prompt in ((3, 1, 4, 1, 5), (2, 7), (2, 7))]
    decode(model, rows, pad_id=0, finished=lambda i, row: len(row.drawn) == 2 + 3 * i)
    for i, row in enumerate(rows):
        ids = list(row.prompt_ids)
        for _ in range(2 + 3 * i):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert [*row.prompt_ids, *row.drawn] == ids


def test_a_number_that_the_config_does_not_name_is_measured() -> None:
    model = made(MODELS["llama"][0])
    model.register_forward_hook(lambda _, __, out: out.__setattr__("logits", out.logits * 0.37))
    assert logit_form(model).scale == pytest.approx(0.37, rel=1e-4)


def test_a_head_of_another_form_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="more than its hidden states times a head") as caught:
        logit_form(made(BertConfig(**SIZES, is_decoder=True)))
    assert "\n" not in str(caught.value)


def test_a_model_that_gives_nan_is_named_as_such() -> None:
    model = made(MODELS["llama"][0])
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        logit_form(model)
