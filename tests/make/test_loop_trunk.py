"""Packed rows against one sample at a time, for several architectures; those that cannot be packed are padded."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
)

from spiritsafe.make.depth import layers_left
from spiritsafe.make.loop import head_of, hidden_states, packs
from spiritsafe.make.loop.frozen import Frozen
from spiritsafe.make.loop.learner import Learner
from spiritsafe.make.objective import TEXT
from spiritsafe.make.packing import pack, packed
from spiritsafe.make.samples import Sample, Target
from spiritsafe.models.logits import logit_form
from tests.make.trains import data

SIZES = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
ENDS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
MODELS = {
    "llama": (LlamaConfig(**WIDE, **ENDS), True),
    "qwen2": (Qwen2Config(**WIDE, **ENDS, tie_word_embeddings=True), True),
    "mistral, window of 4": (MistralConfig(**WIDE, **ENDS, sliding_window=4), True),
    "gpt2": (GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4, **ENDS), True),
    "gemma2, capped scores": (Gemma2Config(**WIDE, **ENDS, head_dim=8), False),
    "bloom, its own attention": (BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4, **ENDS), False),
}


def made(config: Any) -> Any:
    """A random model, peaked enough for a leak to show."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_row_is_computed_as_its_samples_one_by_one(name: str) -> None:
    config, packable = MODELS[name]
    model = made(config)
    assert packs(model) == packable
    for row in pack(data(), tokens_per_row=64):
        with torch.no_grad():
            alone = [
                model.base_model(torch.tensor([s.prompt_ids + s.answer_ids])).last_hidden_state[0] for s in row.samples
            ]
            wanted = torch.cat([h[len(s.prompt_ids) - 1 : -1] for s, h in zip(row.samples, alone, strict=True)])
            torch.testing.assert_close(hidden_states(model, row), wanted, atol=2e-5, rtol=1e-4)


HEADS = {
    "granite": GraniteConfig(**WIDE, **ENDS, logits_scaling=8.0, embedding_multiplier=12.0, attention_multiplier=0.3),
    "gemma2": Gemma2Config(**WIDE, **ENDS, head_dim=8, final_logit_softcapping=1.5),
    "cohere": CohereConfig(**WIDE, **ENDS, logit_scale=0.25),
    "phi": PhiConfig(**WIDE, **ENDS),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_step_has_the_gradients_of_the_whole_model_whatever_follows_its_head(name: str) -> None:
    model, row = made(HEADS[name]), packed(data()[:5])
    for each in model.parameters():
        torch.nn.init.normal_(each, 0.1, 0.2) if each.ndim == 1 else None
    loss, _ = Learner(model, 0, logit_form(model))(row, [Target(TEXT)], scale=1.0)
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    wanted = torch.zeros(())
    for sample in row.samples:
        logits_TV = model(input_ids=torch.tensor([sample.prompt_ids + sample.answer_ids])).logits[0]
        told_TV = logits_TV[len(sample.prompt_ids) - 1 : -1].log_softmax(-1)
        wanted = wanted - told_TV.gather(1, torch.tensor(sample.answer_ids)[:, None]).sum()
    wanted.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for name, weight in model.named_parameters():
        assert (found[name] - weight.grad).norm() < 2e-3 * weight.grad.norm() + 1e-6, name


@pytest.mark.parametrize("name", ["granite", "gemma2", "cohere"])
@torch.no_grad()
def test_layers_behind_frozen_ones_see_what_they_see_in_the_whole_model(name: str) -> None:
    model, samples = made(HEADS[name]), data()[:6]
    row = packed(samples)
    frozen = Frozen(model, 1, tokens_per_row=64, keep=True)
    frozen.see(samples)
    with layers_left(model, [1]):
        found_ND = hidden_states(model, row, states_TD=frozen.states(row))
    torch.testing.assert_close(found_ND, hidden_states(model, row), atol=1e-5, rtol=1e-5)


def test_no_gradient_crosses_a_border() -> None:
    model = made(MODELS["llama"][0])
    row = packed(data()[:3])
    embedded = model.get_input_embeddings()(row.ids_T).detach().requires_grad_()
    end = row.borders[1]
    torch.autograd.backward(hidden_states(model, row, states_TD=embedded)[row.rows_N >= end].square().sum())
    assert embedded.grad is not None
    assert (embedded.grad[:end] == 0).all()
    assert (embedded.grad[end:] != 0).any()


def test_the_models_own_attention_is_back_afterwards() -> None:
    model = made(MODELS["llama"][0])
    before = model.config._attn_implementation
    hidden_states(model, packed(data()[:2]))
    assert model.config._attn_implementation == before


def test_the_head_of_a_tied_model_is_its_embedding() -> None:
    model = made(MODELS["qwen2"][0])
    assert head_of(model) is model.get_input_embeddings().weight


def test_a_sample_may_be_longer_than_a_row() -> None:
    model = made(MODELS["llama"][0])
    (row,) = pack([Sample((2, 3, 4), (5,) * 30)], tokens_per_row=16)
    assert hidden_states(model, row).shape == (30, 32)
