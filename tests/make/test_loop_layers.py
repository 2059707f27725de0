"""Our own layers against transformers': states and gradients of every architecture that has them, odd sizes too."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from spiritsafe.make.loop import layers
from spiritsafe.make.loop.trunk import trunk_states
from spiritsafe.make.packing import packed
from spiritsafe.make.samples import Packed, Sample
from tests.models.decoding.architectures import FAST, PLAIN, tiny


def row(*sizes: int) -> Packed:
    """Random samples of these sizes in one row."""
    source = torch.Generator().manual_seed(1)
    ids = [tuple(torch.randint(4, 60, (size,), generator=source).tolist()) for size in sizes]
    return packed([Sample(some[: len(some) // 3], some[len(some) // 3 :]) for some in ids])


def learned(model: Any, some: Packed) -> tuple[Tensor, dict[str, Tensor]]:
    """Final states and the gradients of every weight of a loss that looks at all of them."""
    model.zero_grad()
    states_TD = trunk_states(model, some).float()
    waves_TD = torch.linspace(-40, 40, states_TD.numel()).view_as(states_TD).sin()
    torch.autograd.backward((states_TD * waves_TD).sum())
    return states_TD.detach(), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def plainly(model: Any, some: Packed) -> tuple[Tensor, dict[str, Tensor]]:
    """The same through transformers' own layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "runs", lambda *_: False)
        return learned(model, some)


def apart(found: Tensor, wanted: Tensor) -> float:
    """The relative distance of two tensors."""
    return float((found - wanted).norm() / wanted.norm())


def flat(gradients: dict[str, Tensor]) -> Tensor:
    """All of them in one vector."""
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def groups(*shapes: tuple[int, Sequence[int]]) -> Packed:
    """(Tokens of a prompt, tokens of each of its answers): prompts that several samples share, not side by side."""
    source = torch.Generator().manual_seed(2)

    def some(size: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, 60, (size,), generator=source).tolist())

    samples = [Sample(prompt, some(size)) for n, sizes in shapes for prompt in [some(n)] for size in sizes]
    return packed(samples[::2] + samples[1::2])


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_prompts_that_samples_share_are_computed_once_with_the_same_gradients(name: str) -> None:
    model, some = tiny(name), groups((40, (20, 7, 33)), (3, (5,)), (17, (1, 13)))
    once = layers.Once(some)
    assert len(once.kept_U) == 40 + 60 + 3 + 5 + 17 + 14
    assert some.ids_T[once.kept_U][once.place_T].equal(some.ids_T)
    (states, gradients), (wanted_states, wanted) = learned(model, some), plainly(model, some)
    assert apart(states, wanted_states) < 1e-5
    for part, found in gradients.items():
        assert apart(found, wanted[part]) < 1e-4, part


@pytest.mark.parametrize("name", [n for n in FAST if n != "mistral"])
@pytest.mark.parametrize("sizes", [(64, 33, 7, 13), (2, 3), (119,)])
def test_states_and_gradients_are_those_of_transformers(name: str, sizes: tuple[int, ...]) -> None:
    model, some = tiny(name), row(*sizes)
    assert layers.runs(model, some)
    (states, gradients), (wanted_states, wanted) = learned(model, some), plainly(model, some)
    assert apart(states, wanted_states) < 1e-5
    assert gradients.keys() == wanted.keys()
    assert apart(flat(gradients), flat(wanted)) < 1e-5
    for part, found in gradients.items():
        if not part.endswith("k_proj.bias"):  # adds the same to all scores of a query: its gradient is rounding
            assert apart(found, wanted[part]) < 1e-3, part


def test_a_window_that_no_sample_reaches_changes_nothing_and_a_shorter_one_is_left_to_transformers() -> None:
    model = tiny("mistral")
    assert apart(learned(model, row(60, 64))[0], plainly(model, row(60, 64))[0]) < 1e-5
    assert not layers.runs(model, row(60, 65))


@pytest.mark.parametrize("name", PLAIN)
def test_other_architectures_are_left_to_transformers(name: str) -> None:
    assert not layers.runs(tiny(name), row(9, 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_rows_give_equal_bits_whatever_the_number_of_threads(dtype: torch.dtype) -> None:
    model, some = tiny("qwen3").to(dtype), groups((64, (33, 9, 1, 3)), (13, (8,)))
    for weight in model.parameters():
        weight.grad_dtype = torch.float32
    found = []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        found.append(learned(model, some))
        torch.set_num_threads(before)
    for states, gradients in found[1:]:
        assert states.equal(found[0][0])
        assert all(part.equal(found[0][1][name]) for name, part in gradients.items())


def test_a_sample_does_not_see_what_lies_beside_it_in_a_row() -> None:
    model, both, one = tiny("llama").bfloat16(), row(40, 21), row(40)
    with torch.no_grad():
        assert trunk_states(model, both)[:40].equal(trunk_states(model, one))


def test_gradients_add_up_over_rows() -> None:
    model = tiny("llama")
    once = learned(model, row(30, 12))[1]
    states_TD = trunk_states(model, row(30, 12))
    torch.autograd.backward((states_TD * torch.linspace(-40, 40, states_TD.numel()).view_as(states_TD).sin()).sum())
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, 2 * once[name], rtol=1e-5, atol=1e-6)


def test_changed_weights_are_noticed() -> None:
    model, some = tiny("llama"), row(20)
    with torch.no_grad():
        before = trunk_states(model, some)
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
        after = trunk_states(model, some)
        assert apart(before, after) > 1e-3
        model.model.layers[1].mlp.up_proj.weight.data.div_(1.5)
        layers.changed(model)
        assert apart(trunk_states(model, some), before) < 1e-5


def test_gradients_pass_through_layers_that_learn_nothing_and_ran_without_gradients_before() -> None:
    model, some = tiny("llama").requires_grad_(False), row(20)
    embedded = model.get_input_embeddings()(some.ids_T).requires_grad_()
    with torch.no_grad():
        trunk_states(model, some)
    torch.autograd.backward(trunk_states(model, some, states_TD=embedded).square().sum())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "runs", lambda *_: False)
        (wanted,) = torch.autograd.grad(trunk_states(model, some, states_TD=embedded).square().sum(), embedded)
    assert embedded.grad is not None
    assert apart(embedded.grad, wanted) < 1e-5


def test_a_watched_or_adapted_layer_is_left_to_torch() -> None:
    model, seen = tiny("llama"), []
    watch = model.model.layers[1].register_forward_hook(lambda *_: seen.append(1))
    assert not layers.runs(model, row(20))
    trunk_states(model, row(20))
    assert seen
    watch.remove()
    assert layers.runs(model, row(20))
