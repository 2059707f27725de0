"""Fidelity: a model is its own perfect copy, a pruned one is not, and paired changes have their sign."""

import math
from pathlib import Path

import pytest

from spiritsafe.make.prune import prune
from spiritsafe.measure.fidelity import Fidelity, calibration, change_verdict, fidelity, fidelity_verdicts, reference
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, Sampling
from tests.tiny import WORDS, write_tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A tiny teacher."""
    folder: Path = write_tiny(tmp_path_factory.mktemp("measure") / "teacher", scale=1.5)
    model = open_model(str(folder))
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="module")
def answers(teacher: LocalModel) -> list[Exchange]:
    """Its answers to 16 prompts."""
    prompts = [user(" ".join(WORDS[i : i + 3])) for i in range(16)]
    return teacher.generate(ask(prompts, Sampling(seed=1, max_tokens=12)))


@pytest.fixture(scope="module")
def pruned(teacher: LocalModel, answers: list[Exchange]) -> Fidelity:
    """A copy without its second layer, compared."""
    model = LocalModel("pruned", "0", prune(teacher.model, (0, 2, 3)), teacher.tokenizer)
    return fidelity(reference(teacher, answers), model, answers)


@pytest.fixture(scope="module")
def itself(teacher: LocalModel, answers: list[Exchange]) -> Fidelity:
    """The teacher compared with itself."""
    return fidelity(reference(teacher, answers), teacher, answers)


def test_a_model_is_its_own_perfect_copy(itself: Fidelity) -> None:
    kl, agreement, _, acceptance, _ = fidelity_verdicts("teacher", itself, seed=0, resamples=200)
    assert (kl.value, kl.interval) == (0.0, (0.0, 0.0))
    assert 1 - 1e-5 < acceptance.value <= 1
    assert (agreement.value, agreement.interval) == (1.0, (1.0, 1.0))


def test_bits_are_the_answers_own_log_probabilities(itself: Fidelity, answers: list[Exchange]) -> None:
    assert itself.bits == pytest.approx([-sum(e.logprobs or ()) / math.log(2) for e in answers], rel=1e-4)
    assert itself.tokens == tuple(len(e.token_ids or ()) for e in answers)
    assert itself.num_bytes == tuple(len(e.answer.encode()) for e in answers)


def test_a_pruned_model_diverges_everywhere_and_agrees_less(pruned: Fidelity) -> None:
    assert min(pruned.kl) > 0
    kl, agreement, bits, acceptance, calibrated = fidelity_verdicts("pruned", pruned, seed=0, resamples=200)
    assert acceptance.value < 0.99
    for verdict in (kl, agreement, bits, acceptance, calibrated):
        assert verdict.interval is not None
        assert verdict.interval[0] < verdict.value < verdict.interval[1]
        assert verdict.n == 16
    assert kl.interval is not None
    assert kl.interval[0] > 0
    assert agreement.value < 1


def test_the_kl_of_the_verdict_is_the_mean_over_tokens(pruned: Fidelity) -> None:
    [kl, *_] = fidelity_verdicts("pruned", pruned, seed=0, resamples=100)
    assert kl.value == pytest.approx(sum(pruned.kl) / sum(pruned.tokens))


def test_a_change_has_the_sign_of_what_became_better(itself: Fidelity, pruned: Fidelity) -> None:
    better = change_verdict("copy", "pruned start", itself, pruned, seed=0, resamples=400)
    worse = change_verdict("pruned start", "copy", pruned, itself, seed=0, resamples=400)
    same = change_verdict("copy", "copy", itself, itself, seed=0, resamples=400)
    assert better.value == -worse.value < 0
    assert better.claim == "The copy is closer to the teacher than the pruned start."
    assert "farther from" in worse.claim
    assert "not provably closer" in same.claim


def test_text_without_token_ids_is_compared_too(teacher: LocalModel, answers: list[Exchange]) -> None:
    texts = [e.model_copy(update={"token_ids": None, "logprobs": None}) for e in answers]
    found = fidelity(reference(teacher, texts), teacher, texts)
    assert min(found.tokens) > 0
    assert max(found.kl) == 0


def test_acceptance_is_one_less_the_total_variation(
    teacher: LocalModel, answers: list[Exchange], pruned: Fidelity
) -> None:
    model = LocalModel("pruned", "0", prune(teacher.model, (0, 2, 3)), teacher.tokenizer)
    theirs, ours = (reference(m, answers[:1])[0].exp() for m in (teacher, model))
    distance = float((theirs - ours).abs().sum()) / 2
    assert pruned.accepted[0] == pytest.approx(pruned.tokens[0] - distance, abs=1e-4)


def test_the_calibration_error_is_that_of_its_definition() -> None:
    """Two bins: 4 tokens at 0.95 of which 2 are right, 6 at 0.15 of which 0 are."""
    gaps = [0.0] * 10
    gaps[9], gaps[1] = 2 - 4 * 0.95, 0 - 6 * 0.15
    found = Fidelity((0.0,) * 2, (0.0,) * 2, (0.0,) * 2, (0.0,) * 2, (10, 10), (1, 1), (tuple(gaps), tuple(gaps)))
    assert calibration(found) == pytest.approx([(1.8 + 0.9) / 10] * 2)


def test_one_that_is_as_sure_as_it_is_right_is_calibrated(teacher: LocalModel) -> None:
    """The teacher's own draws at temperature 1: its confidence is right by definition, but for chance."""
    asked = [user(" ".join(WORDS[i : i + 2])) for i in range(18)]
    own = teacher.generate(ask(asked, Sampling(seed=5, max_tokens=24), n=6))
    hasty = [e.model_copy(update={"token_ids": tuple(reversed(e.token_ids or ()))}) for e in own]
    good, bad = (calibration(fidelity(reference(teacher, given), teacher, given)) for given in (own, hasty))
    assert sum(good) / len(good) < 0.05
    assert sum(bad) / len(bad) > 2 * sum(good) / len(good)
