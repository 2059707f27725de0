"""Adapters: merged at the end, nothing else moves, and a head may have one where it is not the embedding too."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from spiritsafe.errors import RecipeError
from spiritsafe.make.loop import head_of, hidden_states, train
from spiritsafe.make.loop.lora import adapted
from spiritsafe.make.methods import Text
from spiritsafe.make.packing import packed
from spiritsafe.make.prune import prune
from spiritsafe.models.local import LocalModel
from spiritsafe.recipe import LoraPart, TrainPart
from tests.make.trains import data

PART = TrainPart(epochs=2, learning_rate=3e-3, train="all", lora=LoraPart(rank=2), dtype="bfloat16")


@pytest.fixture
def model(teacher: LocalModel) -> Any:
    """A copy to train."""
    return prune(teacher.model, range(4))


@pytest.fixture
def untied(teacher: LocalModel) -> Any:
    """A random model whose head is its own."""
    config = type(teacher.model.config)(**{**teacher.model.config.to_dict(), "tie_word_embeddings": False})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def changes(model: Any, part: TrainPart, **options: Any) -> dict[str, int]:
    """The rank of each weight's change."""
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    train(model, Text(data(), part, seed=0), part, seed=0, **options)
    assert {n: w.shape for n, w in model.named_parameters()} == {n: w.shape for n, w in before.items()}
    deltas = {name: w.detach() - before[name] for name, w in model.named_parameters()}
    return {n: int(torch.linalg.matrix_rank(d, atol=1e-5)) if d.ndim > 1 else int(d.any()) for n, d in deltas.items()}


def test_the_student_is_a_plain_model_whose_linear_layers_moved_by_the_rank(model: Any) -> None:
    found = changes(model, PART)
    assert {n for n, rank in found.items() if rank} == {n for n in found if "_proj" in n}
    assert set(found.values()) == {0, 2}


def test_above_the_cut_only_later_layers_have_adapters(model: Any) -> None:
    found = changes(model, PART.model_copy(update={"train": "above-cut"}), first_trained=3)
    assert {n for n, rank in found.items() if rank} == {
        n for n in found if n.startswith("model.layers.3.") and "_proj" in n
    }


def test_a_head_of_its_own_may_have_an_adapter(untied: Any) -> None:
    part = PART.model_copy(update={"lora": LoraPart(rank=2, targets=("lm_head",))})
    assert {n for n, rank in changes(untied, part).items() if rank} == {"lm_head.weight"}


def test_the_head_with_an_adapter_is_what_the_model_multiplies_with(untied: Any) -> None:
    row = packed(data()[:1])
    with adapted(untied, LoraPart(rank=2, targets=("lm_head",)), first_trained=0, seed=0):
        torch.nn.init.normal_(untied.lm_head.lora_B["default"].weight)
        with torch.no_grad():
            logits = untied(row.ids_T[None]).logits[0, row.rows_N]
            torch.testing.assert_close(hidden_states(untied, row) @ head_of(untied).T, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("targets", "what"), [(("lm_head",), "is the embedding too"), (("nothing",), "lora.targets")])
def test_impossible_targets_are_refused(model: Any, targets: tuple[str, ...], what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        changes(model, PART.model_copy(update={"lora": LoraPart(targets=targets)}))


def test_adapters_of_one_seed_are_equal_and_the_callers_random_numbers_stay(model: Any, teacher: LocalModel) -> None:
    state, found = torch.get_rng_state(), []
    for one in (model, prune(teacher.model, range(4))):
        with adapted(one, LoraPart(rank=2), first_trained=0, seed=7):
            found.append(one.model.layers[0].self_attn.q_proj.lora_A["default"].weight.detach().clone())
    assert found[0].equal(found[1])
    assert torch.get_rng_state().equal(state)
