"""A local model answers through the rollout's engine: what it says stays the same."""

from pathlib import Path

import pytest
import torch

from spiritsafe.make.rollout import decoder
from spiritsafe.make.rollout.decoder import decode_fast, fast
from spiritsafe.models import Request, ask, user
from spiritsafe.models.local import LocalModel, open_directory
from spiritsafe.record import Exchange, Sampling
from tests.tiny import WORDS

SETTINGS = (
    Sampling(max_tokens=9, seed=1),
    Sampling(max_tokens=14, seed=2, temperature=0.7, top_p=0.8),
    Sampling(max_tokens=5, temperature=0.0),
    Sampling(max_tokens=20, seed=3, stop=("red",)),
)


def requests() -> list[Request]:
    """Prompts of several lengths, two answers each, under several settings."""
    prompts = [user(" ".join(WORDS[i : i + 1 + i % 5])) for i in range(9)]
    return [r for i, p in enumerate(prompts) for r in ask([p], SETTINGS[i % 4], n=2)]


@pytest.fixture
def quick(tiny_folder: Path) -> LocalModel:
    """The tiny model with the engine."""
    return fast(open_directory("tiny", str(tiny_folder)))


def said(exchanges: list[Exchange]) -> list[tuple[str, str, tuple[int, ...] | None]]:
    """What can be compared."""
    return [(e.answer, e.finish_reason, e.token_ids) for e in exchanges]


def logprobs(exchanges: list[Exchange]) -> torch.Tensor:
    """All tokens' log-probabilities, one after the other."""
    return torch.tensor([x for e in exchanges for x in e.logprobs or ()])


@pytest.mark.parametrize("room", [1 << 30, 1])
def test_answers_are_those_of_the_reference_decoder(
    tiny: LocalModel, quick: LocalModel, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(decoder, "CACHE_BYTES", room)  # 1: a single slot, one answer after the other
    wanted, found = tiny.generate(requests()), quick.generate(requests())
    assert said(found) == said(wanted)
    assert {e.finish_reason for e in found} == {"stop", "length"}
    torch.testing.assert_close(logprobs(found), logprobs(wanted), atol=2e-5, rtol=0)


def test_an_answer_is_the_same_to_the_last_bit_alone_and_in_a_batch(quick: LocalModel) -> None:
    together = quick.generate(requests())
    alone = [quick.generate([r])[0] for r in requests()]
    assert said(alone) == said(together)
    assert torch.equal(logprobs(alone), logprobs(together))


def test_text_is_streamed_as_before(tiny: LocalModel, quick: LocalModel) -> None:
    pieces: list[dict[int, str]] = [{}, {}]
    for model, seen in zip((tiny, quick), pieces, strict=True):
        model.generate(requests(), on_text=lambda i, text, seen=seen: seen.update({i: seen.get(i, "") + text}))  # type: ignore[misc]
    assert pieces[0] == pieces[1]


def test_a_model_in_another_type_is_decoded_as_before(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_directory("tiny", str(tiny_folder))
    model.model.to(torch.bfloat16)
    wanted = model.generate(requests())
    monkeypatch.setattr(model, "decode", decode_fast)
    assert said(model.generate(requests())) == said(wanted)
