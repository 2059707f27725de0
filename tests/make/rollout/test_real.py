"""The 135M model: the reference decoder's tokens in float32, a bounded error in bfloat16."""

import pytest
import torch

from spiritsafe.make.rollout.engine import Rollout
from spiritsafe.models import Request, ask, open_model, user
from spiritsafe.models.local import LocalModel
from spiritsafe.native import has_bfloat16
from spiritsafe.record import Sampling

TEXTS = ("What is the sea?", "Count to ten.", "Write two lines about rain.", "Who are you?")
TOKENS = 24


@pytest.fixture(scope="module")
def real() -> LocalModel:
    """SmolLM2-135M-Instruct."""
    model = open_model("smollm2")
    assert isinstance(model, LocalModel)
    return model


def requests(temperature: float) -> list[Request]:
    """The prompts, each with a seed of its own."""
    return ask([user(text) for text in TEXTS], Sampling(seed=7, temperature=temperature, max_tokens=TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_float32_draws_the_tokens_of_the_reference_decoder(real: LocalModel, temperature: float) -> None:
    wanted = real.generate(requests(temperature))
    rollout = Rollout(real.model, real.end_ids, slots=3, capacity=128, dtype="float32")
    seeds = [r.sampling.seed or 0 for r in requests(temperature)]
    prompts = [real.render(r) for r in requests(temperature)]
    for answer, exchange in zip(
        rollout.draw(prompts, seeds=seeds, max_tokens=TOKENS, temperature=temperature), wanted, strict=True
    ):
        assert answer.answer_ids == exchange.token_ids
        assert answer.logprobs == pytest.approx(exchange.logprobs, abs=2e-4)
        assert answer.finish_reason == exchange.finish_reason


@pytest.mark.slow
@pytest.mark.skipif(not has_bfloat16(), reason="the processor would only imitate bfloat16")
def test_bfloat16_logprobs_are_within_their_bound(real: LocalModel) -> None:
    prompts = [real.render(r) for r in requests(1.0)]
    half = Rollout(real.model, real.end_ids, slots=8, capacity=128, dtype="bfloat16")
    exact = Rollout(real.model, real.end_ids, slots=1, capacity=128, dtype="float32", teacher=real.model)
    answers = half.draw(prompts, seeds=range(8), max_tokens=TOKENS, group=2)
    assert exact._scorer
    scores = exact._scorer.score([(a.prompt_ids, a.answer_ids) for a in answers])
    errors = torch.tensor(
        [x - y for a, s in zip(answers, scores, strict=True) for x, y in zip(a.logprobs, s, strict=True)]
    )
    assert errors.abs().mean() < 0.03
    assert errors.abs().max() < 0.3
