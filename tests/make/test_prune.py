"""Depth pruning: what is left computes what it computed, and the block that does nothing is found."""

import copy
from typing import Any

import pytest
import torch

from spiritsafe.errors import RecipeError
from spiritsafe.make.depth import layers_left, without_block
from spiritsafe.make.prune import choose_cut, prune
from spiritsafe.models.decoding.scoring import Pair, answer_logprobs
from spiritsafe.models.local import LocalModel

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def idle(model: Any, *layers: int) -> Any:
    """A copy of the model whose `layers` add nothing to the residual stream."""
    made = copy.deepcopy(model)
    for i in layers:
        for weight in (made.model.layers[i].self_attn.o_proj.weight, made.model.layers[i].mlp.down_proj.weight):
            torch.nn.init.zeros_(weight)
    return made


def test_keeping_all_layers_keeps_the_computation(teacher: LocalModel) -> None:
    with torch.inference_mode():
        assert torch.equal(prune(teacher.model, range(4))(IDS).logits, teacher.model(IDS).logits)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_layer_that_does_nothing_is_the_one_left_out(teacher: LocalModel, pairs: list[Pair], layer: int) -> None:
    cut = choose_cut(idle(teacher.model, layer), pairs, num_layers=3, pad_id=teacher.pad_id)
    assert cut.keep == without_block(4, layer, 1)
    assert cut.kl_by_start[layer] == pytest.approx(0, abs=1e-5)
    assert set(cut.kl_by_start) == {1, 2}
    assert min(kl for start, kl in cut.kl_by_start.items() if start != layer) > 1e-3


def test_a_block_that_does_nothing_is_left_out_without_any_change(teacher: LocalModel, pairs: list[Pair]) -> None:
    model = idle(teacher.model, 1, 2)
    cut = choose_cut(model, pairs, num_layers=2, pad_id=teacher.pad_id)
    assert cut.keep == (0, 3)
    with torch.inference_mode():
        torch.testing.assert_close(prune(model, cut.keep)(IDS).logits, model(IDS).logits)


def test_the_measured_cost_is_the_divergence_of_the_pruned_copy(teacher: LocalModel, pairs: list[Pair]) -> None:
    cut = choose_cut(teacher.model, pairs, num_layers=3, pad_id=teacher.pad_id)
    for start, cost in cut.kl_by_start.items():
        pruned = prune(teacher.model, without_block(4, start, 1))
        with torch.inference_mode():
            p = torch.cat(list(answer_logprobs(teacher.model, pairs, pad_id=1)))
            q = torch.cat(list(answer_logprobs(pruned, pairs, pad_id=1)))
        assert cost == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)


def test_the_search_reports_every_block_and_leaves_the_model_whole(teacher: LocalModel, pairs: list[Pair]) -> None:
    with torch.inference_mode():
        before = teacher.model(IDS).logits
        ticks: list[None] = []
        choose_cut(teacher.model, pairs, num_layers=3, pad_id=teacher.pad_id, tick=lambda: ticks.append(None))
        assert len(ticks) == 2
        assert torch.equal(teacher.model(IDS).logits, before)
    for layer in teacher.model.model.layers:  # one with hooks would be computed by another path from then on
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())


def use_two_layers_and_fail(model: Any) -> None:
    """Leave two layers out, then fail."""
    with layers_left(model, (0, 3)):
        assert len(model.model.layers) == model.config.num_hidden_layers == 2
        raise KeyError


def test_leaving_layers_out_for_a_while_ends_also_with_an_error(teacher: LocalModel) -> None:
    with torch.inference_mode():
        before = teacher.model(IDS).logits
        with pytest.raises(KeyError):
            use_two_layers_and_fail(teacher.model)
        assert torch.equal(teacher.model(IDS).logits, before)
    assert teacher.model.config.num_hidden_layers == len(teacher.model.model.layers) == 4
    assert [layer.self_attn.layer_idx for layer in teacher.model.model.layers] == [0, 1, 2, 3]


def test_a_pruned_copy_decodes_with_a_cache_and_shares_no_weights(teacher: LocalModel) -> None:
    student = prune(teacher.model, (0, 2, 3))
    assert student.config.num_hidden_layers == 3
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == [0, 1, 2]
    with torch.inference_mode():
        whole = student(IDS).logits[:, -1]
        first = student(IDS[:, :-1], use_cache=True)
        torch.testing.assert_close(
            student(IDS[:, -1:], past_key_values=first.past_key_values).logits[:, -1], whole, atol=1e-4, rtol=1e-4
        )
    theirs = {w.data_ptr() for w in teacher.model.parameters()}
    assert theirs.isdisjoint(w.data_ptr() for w in student.parameters())


@pytest.mark.parametrize("num_layers", [1, 4, 9])
def test_a_number_of_layers_that_leaves_no_choice_is_named(
    teacher: LocalModel, pairs: list[Pair], num_layers: int
) -> None:
    with pytest.raises(RecipeError, match=rf"make\.num_layers: is {num_layers}, the teacher has 4 layers; choose 2 to"):
        choose_cut(teacher.model, pairs, num_layers=num_layers, pad_id=1)


@pytest.mark.parametrize("keep", [(), (0, 4)])
def test_layers_that_do_not_exist_are_named(teacher: LocalModel, keep: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match=r"make\.drop: the teacher has layers 0 to 3"):
        prune(teacher.model, keep)
