"""A local model answers by steps in C++: what it says is what the padded decoder says, where it runs and where not."""

import gc
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from spiritsafe import threads
from spiritsafe.models import Request, ask, user
from spiritsafe.models.decoding import native, padded
from spiritsafe.models.decoding.llama import Packed, Steps
from spiritsafe.models.decoding.native import Native
from spiritsafe.models.local import LocalModel, open_directory
from spiritsafe.record import Exchange, Sampling
from tests.models.decoding.architectures import PLAIN, tiny
from tests.tiny import WORDS

SETTINGS = (
    Sampling(max_tokens=9, seed=1),
    Sampling(max_tokens=14, seed=2, temperature=0.7, top_p=0.8),
    Sampling(max_tokens=5, temperature=0.0),
    Sampling(max_tokens=20, seed=3, stop=("red",)),
    Sampling(max_tokens=12, seed=2**62 + 1, temperature=1.6),
    Sampling(max_tokens=12, seed=4, top_p=0.1),
)


def requests() -> list[Request]:
    """Prompts of several lengths, two answers each, under several settings."""
    prompts = [user(" ".join(WORDS[i : i + 1 + i % 5])) for i in range(12)]
    return [r for i, p in enumerate(prompts) for r in ask([p], SETTINGS[i % len(SETTINGS)], n=2)]


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has decoded yet."""
    monkeypatch.setattr(threads, "_decoders", set())


@pytest.fixture
def quick(tiny_folder: Path) -> LocalModel:
    """The tiny model."""
    return open_directory("tiny", str(tiny_folder))


@pytest.fixture
def plain(tiny_folder: Path) -> LocalModel:
    """The same model with the padded decoder."""
    model = open_directory("tiny", str(tiny_folder))
    model.decode = padded.decode
    return model


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models whose weights were packed, one entry for each time."""
    packed: list[Any] = []
    refresh = Packed.refresh

    def counted(self: Packed) -> None:
        packed.append(self.model)
        refresh(self)

    monkeypatch.setattr(Packed, "refresh", counted)
    return packed


@pytest.fixture
def number_of_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def said(exchanges: Sequence[Exchange]) -> list[tuple[str, str, tuple[int, ...] | None]]:
    """What can be compared."""
    return [(e.answer, e.finish_reason, e.token_ids) for e in exchanges]


def logprobs(exchanges: Sequence[Exchange]) -> torch.Tensor:
    """All tokens' log-probabilities, one after the other."""
    return torch.tensor([x for e in exchanges for x in e.logprobs or ()])


@pytest.mark.parametrize("room", [1 << 30, 1])
def test_answers_are_those_of_the_padded_decoder(
    plain: LocalModel, quick: LocalModel, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(native, "CACHE_BYTES", room)  # 1: a single slot, one answer after the other
    monkeypatch.setattr(native, "_has_room", lambda _: True)
    wanted = plain.generate(requests())
    found = quick.generate(requests())
    assert said(found) == said(wanted)
    assert [e.id for e in found] == [e.id for e in wanted]
    assert {e.finish_reason for e in found} == {"stop", "length"}
    torch.testing.assert_close(logprobs(found), logprobs(wanted), atol=2e-5, rtol=0)
    assert threads.computed()["decoders"] == ["native"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_answer_is_the_same_to_the_last_bit_alone_and_in_a_batch_on_any_number_of_threads(
    quick: LocalModel, number_of_threads: Callable[[int], None], number: int
) -> None:
    number_of_threads(1)
    together = quick.generate(requests())
    number_of_threads(number)
    for found in ([quick.generate([r])[0] for r in requests()], quick.generate(requests()[::-1])[::-1]):
        assert said(found) == said(together)
        assert torch.equal(logprobs(found), logprobs(together))


def test_answers_that_outgrow_their_room_are_the_same(quick: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = quick.generate(requests())
    rooms: list[int] = []
    resize = Steps.resize

    def seen(self: Steps, capacity: int) -> None:
        rooms.append(capacity)
        resize(self, capacity)

    monkeypatch.setattr(native, "GROWTH", 2)
    monkeypatch.setattr(Steps, "resize", seen)
    found = quick.generate(requests())
    assert said(found) == said(wanted)
    assert torch.equal(logprobs(found), logprobs(wanted))
    assert len(rooms) > 1


def test_text_is_streamed_token_by_token_as_before(plain: LocalModel, quick: LocalModel) -> None:
    heard: list[list[tuple[int, str]]] = [[], []]
    for model, pieces in zip((plain, quick), heard, strict=True):
        model.generate(requests()[:2], on_text=lambda i, text, pieces=pieces: pieces.append((i, text)))  # type: ignore[misc]
    assert heard[0] == heard[1]
    assert len(heard[1]) > 4


def test_calls_at_the_same_time_share_the_weights_and_answer_as_alone(quick: LocalModel, packings: list[Any]) -> None:
    alone = quick.generate(requests())
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: quick.generate(requests()), range(6)):
            assert said(found) == said(alone)
    assert len(packings) == 1


def test_weights_that_change_are_packed_anew(plain: LocalModel, quick: LocalModel, packings: list[Any]) -> None:
    before = quick.generate(requests())
    for model in (plain, quick):
        with torch.no_grad():
            for weight in model.model.parameters():
                weight.mul_(1.5)
    after = quick.generate(requests())
    assert said(after) == said(plain.generate(requests()))
    assert said(after) != said(before)
    assert len(packings) == 2


def test_packed_weights_of_idle_models_are_given_back_first(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, packings: list[Any]
) -> None:
    monkeypatch.setattr(native, "_latest", deque())
    models = [open_directory(name, str(tiny_folder)) for name in "abc"]
    monkeypatch.setattr(native, "KEPT_BYTES", 2 * native.weight_bytes(models[0].model))
    for name in "abac":  # c comes when b was asked longest ago
        models["abc".index(name)].generate(requests()[:1])
    held = [bool(isinstance(m.decode, Native) and m.decode.packed) for m in models]
    assert held == [True, False, True]
    assert packings == [m.model for m in models]
    assert models[1].generate(requests()[:1])[0].answer == models[0].generate(requests()[:1])[0].answer


def test_a_model_that_is_gone_leaves_no_packed_weights(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_latest", deque())
    open_directory("tiny", str(tiny_folder)).generate(requests()[:1])
    gc.collect()
    assert [ref() for ref in native._latest] == [None]


def test_without_memory_for_a_second_copy_of_the_weights_the_answers_are_the_same(
    plain: LocalModel, quick: LocalModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 99999 kB\nMemAvailable: 1000 kB\n")
    monkeypatch.setattr(native, "MEMORY", tmp_path / "meminfo")
    assert said(quick.generate(requests())) == said(plain.generate(requests()))
    assert threads.computed()["decoders"] == ["padded"]


def test_the_bound_of_a_control_group_counts_too_and_an_unknown_amount_is_taken_to_be_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(native, "GROUP", tmp_path)
    assert native._has_room(1 << 40)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000000000\n")
    assert native._has_room(1 << 40)
    (tmp_path / "memory.max").write_text("8000000000\n")
    assert native._has_room(1_000_000_000)
    assert not native._has_room(2_000_000_000)


def test_a_model_in_another_type_is_decoded_as_before(quick: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.model.to(torch.bfloat16)
    found = quick.generate(requests())
    assert threads.computed()["decoders"] == ["padded"]
    monkeypatch.setattr(quick, "decode", padded.decode)
    assert said(found) == said(quick.generate(requests()))


@pytest.mark.parametrize("name", PLAIN)
def test_another_architecture_is_decoded_as_before(plain: LocalModel, name: str) -> None:
    models = [LocalModel(name, "0" * 64, tiny(name), plain.tokenizer) for _ in range(2)]
    models[1].decode = padded.decode
    assert said(models[0].generate(requests())) == said(models[1].generate(requests()))
    assert threads.computed()["decoders"] == ["padded"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it
def test_a_model_with_adapters_beside_its_weights_is_decoded_as_before(plain: LocalModel) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(plain.model, config).eval()
    model = LocalModel("adapted", "0" * 64, adapted, plain.tokenizer)
    with adapted.disable_adapter():
        without = model.generate(requests())
    assert said(model.generate(requests())) != said(without)
    assert threads.computed()["decoders"] == ["padded"]


def test_a_model_whose_layers_are_fewer_than_its_config_says_is_decoded_as_before(
    plain: LocalModel, quick: LocalModel
) -> None:
    whole = quick.generate(requests())
    for model in (plain, quick):
        model.model.model.layers = model.model.model.layers[:2]
    assert said(quick.generate(requests())) == said(plain.generate(requests())) != said(whole)
    assert threads.computed()["decoders"] == ["native", "padded"]


def test_a_prompt_for_which_the_weights_give_nan_fails_alone(plain: LocalModel, quick: LocalModel) -> None:
    broken = quick.tokenizer.convert_tokens_to_ids("bird")
    asked = [Request(user(text), Sampling(seed=1, max_tokens=6)) for text in ("one two", "one bird", "two")]
    sound = plain.generate(asked)
    for model in (plain, quick):
        head = torch.nn.Linear(32, len(model.tokenizer), bias=False)
        head.weight = torch.nn.Parameter(model.model.lm_head.weight.detach().clone())
        model.model.lm_head = head  # untied: only what reads the word is broken
        model.model.config.tie_word_embeddings = False
        with torch.no_grad():
            model.model.model.embed_tokens.weight[broken] = math.nan
        found = model.generate(asked)
        assert [e.error_kind for e in found] == ["", "model", ""]
        assert said([found[0], found[2]]) == said([sound[0], sound[2]])


def test_one_logit_that_is_nan_breaks_the_row_as_before(quick: LocalModel, plain: LocalModel) -> None:
    for model in (plain, quick):
        head = torch.nn.Linear(32, len(model.tokenizer), bias=False)
        head.weight = torch.nn.Parameter(model.model.lm_head.weight.detach().clone())
        model.model.lm_head = head
        with torch.no_grad():
            head.weight[7] = math.nan
        assert {e.error_kind for e in model.generate(requests())} == {"model"}
