"""A local model behind the gateway: what it cannot answer is refused alone, and two threads may ask it."""

import threading
from pathlib import Path

import openai
import pytest

from spiritsafe import threads as computing
from spiritsafe.models import open_model
from spiritsafe.models.base import Request, user
from spiritsafe.models.decoding import padded
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Sampling
from tests.guard.conftest import Serve


def test_a_prompt_beyond_the_context_is_refused_before_it_waits_and_its_neighbour_is_answered(
    serve: Serve, tiny: LocalModel
) -> None:
    served = serve(tiny)
    create = served.client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as caught:
        create(model="served", messages=[{"role": "user", "content": "one " * 20_000}])
    assert caught.value.code == "context_length_exceeded"
    fine = create(model="served", messages=[{"role": "user", "content": "one two"}], max_tokens=2)
    assert fine.usage is not None
    assert fine.usage.completion_tokens <= 2
    assert [exchange.error_kind for exchange in served.log()] == ["request", ""]


@pytest.mark.parametrize("address", ["{tiny}", "guarded:default+{tiny}"])
def test_what_is_served_is_decoded_in_cpp_and_streamed_as_it_grows(
    serve: Serve, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(computing, "_decoders", set())
    served = serve(address.format(tiny=tiny_folder))
    said = [{"role": "user", "content": "one two three"}]
    answers: list[list[str]] = []
    for seed in range(6):
        asked = {"model": "served", "messages": said, "seed": seed, "max_tokens": 12, "stream": True}
        chunks = list(served.client.chat.completions.create(**asked))  # type: ignore[call-overload]
        texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        answers.append([text for text in texts if text])
    assert computing.computed()["decoders"] == ["native"]
    assert max(map(len, answers)) > 3
    plain = open_model(str(tiny_folder))
    plain.decode = padded.decode  # type: ignore[attr-defined]
    for pieces, logged in zip(answers, served.log(), strict=True):
        [wanted] = plain.generate([Request(logged.messages, logged.sampling)])
        assert "".join(pieces) == logged.answer == wanted.answer
        assert logged.token_ids == wanted.token_ids


def test_answers_are_the_same_from_two_threads_at_once(tiny: LocalModel) -> None:
    asked = [[Request(user(f"one {k} {i}"), Sampling(max_tokens=8, seed=k + i)) for i in range(3)] for k in range(4)]
    alone = [[exchange.answer for exchange in tiny.generate(wave)] for wave in asked]
    together: dict[int, list[str]] = {}

    def ask(numbers: list[int]) -> None:
        for number in numbers:
            together[number] = [exchange.answer for exchange in tiny.generate(asked[number])]

    threads = [threading.Thread(target=ask, args=(numbers,)) for numbers in ([0, 1], [2, 3])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(4)] == alone
