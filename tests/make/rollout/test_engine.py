"""Rollouts draw what the reference decoder draws, whatever else is drawn beside them."""

from typing import Any

import pytest
import torch

from spiritsafe.errors import ModelError
from spiritsafe.make.rollout.engine import Drawn, Rollout
from spiritsafe.models.decoding import llama
from spiritsafe.models.decoding.llama import Steps
from spiritsafe.models.decoding.padded import Row, decode
from spiritsafe.record import Sampling
from tests.models.decoding.architectures import END, FAST, PLAIN, VOCAB, tiny

PROMPTS = [(5, 6, 7, 8), (9,), tuple(range(2, 40)), (5, 6, 7, 8), (11, 3)]
ENDS = (END, 7, 9, 12)
SEEDS = [3, 2**62 + 1, 5, 6, 7]


def reference(model: Any, *, max_tokens: int = 24, temperature: float = 1.0) -> list[Row]:
    """`PROMPTS` answered by the existing decoder."""
    settings = [Sampling(seed=seed, temperature=temperature) for seed in SEEDS]
    rows = [Row(prompt, sampling) for prompt, sampling in zip(PROMPTS, settings, strict=True)]

    def finished(_: int, row: Row) -> bool:
        return row.drawn[-1] in ENDS or len(row.drawn) == max_tokens

    with torch.inference_mode():
        decode(model, rows, pad_id=END, finished=finished)
    return rows


def drawn(model: Any, order: list[int] | None = None, *, slots: int = 3, dtype: Any = "float32", **more: Any) -> Any:
    """`PROMPTS` in an order of their own, answered by a rollout, put back into the first order."""
    order = order or list(range(len(PROMPTS)))
    settings = {"max_tokens": 24, "temperature": 1.0} | more
    rollout = Rollout(model, ENDS, slots=slots, capacity=64, dtype=dtype)
    answers = rollout.draw([PROMPTS[i] for i in order], seeds=[SEEDS[i] for i in order], **settings)
    return [answers[order.index(i)] for i in sorted(order)]


@pytest.mark.parametrize("name", [*FAST, *PLAIN])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_are_those_of_the_reference_decoder(name: str, temperature: float) -> None:
    model = tiny(name)
    for answer, row in zip(
        drawn(model, temperature=temperature), reference(model, temperature=temperature), strict=True
    ):
        assert answer.answer_ids == tuple(row.drawn)
        assert answer.logprobs == pytest.approx(row.logprobs, abs=1e-4)
        assert answer.finish_reason == ("stop" if row.drawn[-1] in ENDS else "length")


@pytest.mark.parametrize("name", FAST)
def test_the_llama_family_runs_in_c(name: str) -> None:
    assert llama.fits(tiny(name), 64)


@pytest.mark.parametrize("name", PLAIN)
def test_other_architectures_run_in_transformers(name: str) -> None:
    assert not llama.fits(tiny(name), 64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_draw_is_bit_for_bit_the_same_alone_in_any_batch_slot_and_order(dtype: str) -> None:
    model = tiny("qwen3")
    first = drawn(model, dtype=dtype, slots=5)
    assert drawn(model, [4, 2, 0, 3, 1], dtype=dtype, slots=2) == first
    assert [drawn(model, [i], dtype=dtype, slots=1)[0] for i in range(len(PROMPTS))] == first


def test_answers_of_different_length_leave_and_enter_slots() -> None:
    lengths = {len(answer.answer_ids) for answer in drawn(tiny("llama"))}
    assert len(lengths) > 2, "else the tests above show nothing"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every call of `Steps.forward` from here on."""
    seen: list[int] = []
    whole = Steps.forward

    def forward(self: Steps, *given: Any) -> Any:
        seen.append(len(given[0]))
        return whole(self, *given)

    monkeypatch.setattr(Steps, "forward", forward)
    return seen


def test_a_group_reads_its_prompt_once_and_draws_what_it_would_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt, seeds = tiny("llama"), PROMPTS[2], list(range(8))
    single = Rollout(model, ENDS, slots=1, capacity=64, dtype="float32")
    alone = [single.draw([prompt], seeds=[seed], max_tokens=9)[0] for seed in seeds]
    rows = counted(monkeypatch)
    group = Rollout(model, ENDS, slots=3, capacity=64, dtype="float32")
    together = group.draw([prompt], seeds=seeds, max_tokens=9, group=8)
    assert together == alone
    assert sum(rows) == len(prompt) - 1 + sum(len(answer.answer_ids) for answer in together)


def test_a_free_slot_is_filled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = counted(monkeypatch)
    rollout = Rollout(tiny("llama"), [], slots=2, capacity=64, dtype="float32")
    rollout.draw([(3,)] * 5, seeds=range(5), max_tokens=4)
    assert rows == [2] * 8 + [1] * 4


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_draws_follow_the_weights_after_a_refresh(name: str) -> None:
    model = tiny(name)
    rollout = Rollout(model, ENDS, slots=5, capacity=64, dtype="float32")
    before = rollout.draw(PROMPTS, seeds=SEEDS, max_tokens=24)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    rollout.refresh()
    after = rollout.draw(PROMPTS, seeds=SEEDS, max_tokens=24)
    assert [a.answer_ids for a in after] == [tuple(row.drawn) for row in reference(model)]
    assert [a.answer_ids for a in after] != [a.answer_ids for a in before]


def test_the_engine_in_transformers_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("qwen2")
    fast = drawn(model)
    monkeypatch.setattr(llama, "native", lambda *_, **__: None)
    for answer, plain in zip(fast, drawn(model), strict=True):
        assert answer.answer_ids == plain.answer_ids
        assert answer.logprobs == pytest.approx(plain.logprobs, abs=1e-4)


def with_teacher(model: Any, teacher: Any) -> list[Drawn]:
    rollout = Rollout(model, ENDS, slots=3, capacity=64, dtype="float32", teacher=teacher)
    return rollout.draw(PROMPTS, seeds=SEEDS, max_tokens=24)


def test_a_student_that_is_its_own_teacher_has_the_same_logprobs_bit_for_bit() -> None:
    model = tiny("qwen3")
    assert all(answer.teacher_logprobs == answer.logprobs for answer in with_teacher(model, model))


@pytest.mark.parametrize("name", ["qwen2", "gpt_neox"])
def test_a_teachers_scores_are_those_of_its_own_forward(name: str) -> None:
    teacher = tiny(name, seed=1)
    for answer in with_teacher(tiny("llama"), teacher):
        ids = torch.tensor([[*answer.prompt_ids, *answer.answer_ids]])
        with torch.inference_mode():
            logprobs_TV = teacher(input_ids=ids).logits[0].log_softmax(-1)
        start = len(answer.prompt_ids)
        wanted = [logprobs_TV[t - 1, ids[0, t]].item() for t in range(start, ids.shape[1])]
        assert answer.teacher_logprobs == pytest.approx(wanted, abs=1e-4)


def test_draws_follow_the_students_own_distribution() -> None:
    model, num = tiny("llama"), 3000
    rollout = Rollout(model, ENDS, slots=64, capacity=16, dtype="float32")
    answers = rollout.draw([(5, 6)], seeds=range(num), max_tokens=1, group=num)
    seen = torch.bincount(torch.tensor([a.answer_ids[0] for a in answers]), minlength=VOCAB) / num
    with torch.inference_mode():
        wanted = model(input_ids=torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    assert (seen - wanted).abs().sum() / 2 < 0.05  # the sampling error of 3000 draws over 61 tokens is about 0.03


def test_bfloat16_stays_near_float32() -> None:
    model = tiny("llama")
    exact = Rollout(model, ENDS, slots=5, capacity=64, dtype="float32", teacher=model)
    half = Rollout(model, ENDS, slots=5, capacity=64, dtype="bfloat16")
    for answer in half.draw(PROMPTS, seeds=SEEDS, max_tokens=24):
        assert exact._scorer
        wanted = exact._scorer.score([(answer.prompt_ids, answer.answer_ids)])[0]
        assert answer.logprobs == pytest.approx(wanted, abs=0.2)
        assert answer.logprobs != wanted


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it
def test_adapters_count_before_they_are_merged() -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny("llama")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    adapted = drawn(model.eval())
    assert [a.answer_ids for a in adapted] == [tuple(row.drawn) for row in reference(model)]
    with model.disable_adapter():
        assert drawn(model) != adapted


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    rollout = Rollout(tiny("llama"), ENDS, slots=1, capacity=16)
    with pytest.raises(ModelError, match="prompt 1: has 10 tokens, 8 more must fit into 16"):
        rollout.draw([(1,), (2,) * 10], seeds=[1, 2], max_tokens=8)
