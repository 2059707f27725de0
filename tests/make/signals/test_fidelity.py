"""The fidelity report: theorems and limits on a tiny teacher and a student of it."""

from dataclasses import replace

import pytest
import torch

from spiritsafe.make.prune import prune
from spiritsafe.make.signals.fidelity import Scene, Way, fidelity
from spiritsafe.make.signals.kinds import DenseSignal
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.sample import Keep
from spiritsafe.models.decoding.scoring import Pair, answer_hidden
from spiritsafe.models.local import LocalModel

FINE = Precision(0.02, 0.2, 0.1)


@pytest.fixture(scope="module")
def scene(teacher: LocalModel, pairs: list[Pair]) -> Scene:
    """The answers as the teacher and a student of two of its layers see them."""
    student = prune(teacher.model, (0, 3))
    with torch.inference_mode():
        theirs = answer_hidden(teacher.model, pairs, pad_id=teacher.pad_id)
        ours = answer_hidden(student, pairs, pad_id=teacher.pad_id)
    tokens = torch.tensor([token for _, answer in pairs for token in answer])
    head = teacher.model.lm_head.weight.detach()
    lengths = tuple(len(answer) for _, answer in pairs)
    return Scene(DenseSignal(torch.cat(theirs).clone(), head), torch.cat(ours).clone(), head, tokens, lengths)


def test_a_target_with_every_token_is_the_teacher_s(scene: Scene) -> None:
    (found,) = fidelity(scene, [Way("all", Keep("head", 26, FINE))], seed=0)
    assert found.total_variation.high < 0.005
    assert found.cosine.value > 0.9999
    assert found.cosine_head > 0.9999
    assert abs(found.loss_bias.value) < 3e-3
    assert (found.draws, found.loss_noise, found.noise_head) == (1, 0.0, 0.0)


def test_samples_leave_noise_and_no_bias_where_a_truncated_head_is_biased(scene: Scene) -> None:
    ways = [
        Way("unbiased", Keep("unbiased", 6, FINE)),
        Way("truncated", Keep("head", 6), "truncated"),
        Way("renormalised", Keep("head", 6), "renormalised"),
    ]
    unbiased, truncated, renormalised = fidelity(scene, ways, seed=1, draws=100)
    assert unbiased.loss_bias.low < 2e-3
    assert unbiased.loss_bias.high > -2e-3
    assert unbiased.loss_noise > 0
    assert unbiased.bias_head < unbiased.noise_head / 5
    for naive in (truncated, renormalised):
        assert naive.bytes_per_token == 24
        assert naive.bias_head > 3 * unbiased.bias_head
        assert naive.total_variation.low > 5 * unbiased.total_variation.high


def test_more_entries_come_nearer_to_the_full_gradient(scene: Scene) -> None:
    for mode in ("head", "unbiased"):
        few, many = fidelity(scene, [Way("", replace(Keep(mode, 4), num=n)) for n in (4, 16)], seed=2)
        assert few.bytes_per_token < many.bytes_per_token
        assert few.cosine.value < many.cosine.value
        assert few.cosine_head < many.cosine_head


def test_one_draw_cannot_tell_bias_from_noise(scene: Scene) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        fidelity(scene, [], seed=0, draws=1)


def test_levels_that_do_not_reach_unlikely_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"255 levels reach 0\.3 nats, must reach 12"):
        Precision(finest=0.001)
