"""Prompts: usable, unlike one another, and split by nothing but their content."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritsafe.checks.verify import outcome
from spiritsafe.errors import DataError, RecipeError
from spiritsafe.models import user
from spiritsafe.prompts import (
    Prompt,
    clean,
    jaccard,
    near_duplicate,
    split_of,
    synthesise,
    task_prompts,
    word_pairs,
)
from spiritsafe.recipe import PromptsPart, TaskPart
from spiritsafe.record import Exchange, Sampling, prompt_digest

TASKS = (TaskPart(family="chain_sum", num=12), TaskPart(family="basic_arithmetic", num=6))
WORDS = [f"word{i}" for i in range(400)]
Generate = Callable[[int, Sampling], list[Exchange]]


def written(text: str, sampling: Sampling, reason: str = "stop") -> Exchange:
    """A user turn as a model would write it."""
    return Exchange.model_validate(
        {"id": text, "model": "m", "model_digest": "0", "messages": (), "sampling": sampling, "answer": text}
        | {"open_turn": "user", "finish_reason": reason}
    )


def writer(rounds: list[int]) -> Generate:
    """A teacher that writes random words, and notes how many it was asked for."""

    def generate(n: int, sampling: Sampling) -> list[Exchange]:
        rounds.append(n)
        random = Random(sampling.seed)
        return [written(" ".join(random.sample(WORDS, 6)), sampling) for _ in range(n)]

    return generate


def test_a_clean_prompt_is_one_line() -> None:
    assert clean("  What is\n\tpeat   made of? ", min_words=4) == "What is peat made of?"


@pytest.mark.parametrize("text", ["", "two words", "again again again again again", "a bell\x07 rings in here"])
def test_short_repeating_and_unprintable_text_is_no_prompt(text: str) -> None:
    assert clean(text, min_words=4) is None


@given(st.text(max_size=60), st.integers(1, 5))
def test_cleaning_twice_is_cleaning_once(text: str, min_words: int) -> None:
    once = clean(text, min_words=min_words)
    assert once is None or clean(once, min_words=min_words) == once


def test_a_text_is_a_near_duplicate_of_itself_whatever_its_case_and_spaces() -> None:
    kept = [word_pairs("How is peat cut?")]
    assert near_duplicate(word_pairs("how  is PEAT cut?"), kept, threshold=1.0)
    assert not near_duplicate(word_pairs("Who cuts the peat?"), kept, threshold=0.6)
    assert not near_duplicate(word_pairs("anything"), [], threshold=0.1)


def test_sums_of_other_numbers_are_not_near_duplicates() -> None:
    kept = [word_pairs("What is 12 + 30?")]
    assert not near_duplicate(word_pairs("What is 57 + 81?"), kept, threshold=0.6)


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_likeness_is_symmetric_between_0_and_1_and_1_only_for_equals(a: set[int], b: set[int]) -> None:
    assert jaccard(a, b) == jaccard(b, a)
    assert 0 <= jaccard(a, b) <= 1
    assert (jaccard(a, b) == 1) == (a == b)


def test_the_split_follows_from_content_and_meets_its_share() -> None:
    prompts = [user(f"prompt {i}") for i in range(2000)]
    splits = [split_of(p, heldout_share=0.3) for p in prompts]
    assert 0.27 < splits.count("heldout") / len(splits) < 0.33
    assert [split_of(p, heldout_share=0.3) for p in reversed(prompts)] == splits[::-1]
    wider = [split_of(p, heldout_share=0.5) for p in prompts]
    assert all(b == "heldout" for a, b in zip(splits, wider, strict=True) if a == "heldout")


def test_the_ends_of_the_share_hold_all_or_nothing() -> None:
    assert {split_of(user(str(i)), heldout_share=0.0) for i in range(50)} == {"train"}
    assert {split_of(user(str(i)), heldout_share=1.0) for i in range(50)} == {"heldout"}


def test_tasks_are_the_same_at_every_call_and_others_with_another_seed() -> None:
    first, again, other = (task_prompts(TASKS, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert {p.digest for p in first}.isdisjoint({p.digest for p in other})


def test_equal_tasks_come_once_and_only_in_one_split() -> None:
    tiny = TaskPart(family="chain_sum", num=60, options={"max_digits": 1, "min_terms": 2, "max_terms": 2})
    prompts = task_prompts([tiny, tiny], seed=0)
    assert len({p.digest for p in prompts}) == len(prompts) <= 60
    assert all(p.digest == prompt_digest(p.messages) for p in prompts)
    assert {p.split for p in prompts} == {"train", "heldout"}


def gold(prompt: Prompt) -> str:
    """The task's own answer, computed here: both families are arithmetic."""
    question = prompt.messages[0].content
    sum_ = question.split(":")[-1] if ":" in question else question
    kept = "".join(c for c in sum_ if c in "0123456789+-*/(). ").strip(" .")
    return str(int(eval(kept)))


def test_a_task_accepts_its_own_answer_plain_or_at_the_end_of_a_sentence_and_no_other() -> None:
    for prompt in task_prompts(TASKS[:1], seed=3):
        answer = int(gold(prompt))
        assert outcome(prompt, f" {answer}\n") == "correct"
        assert outcome(prompt, f"We add 1 and 2 first, so the answer is {answer}.") == "correct"
        assert outcome(prompt, f"It is {answer:,}") == "correct"
        assert outcome(prompt, str(answer + 1)) == "wrong"
        assert outcome(prompt, f"{answer}, or rather {answer + 1}") == "wrong"


@pytest.mark.parametrize("answer", ["", "no idea", "∞", "-", "1e999", "9" * 400, "1/0", "[[(", "\x00"])
def test_a_strange_answer_is_wrong_and_not_a_crash(answer: str) -> None:
    for prompt in task_prompts(TASKS, seed=3):
        assert outcome(prompt, answer) in ("wrong", "error")


@pytest.mark.parametrize(
    "task", [TaskPart(family="chain_sums", num=1), TaskPart(family="chain_sum", num=1, options={"colour": 1})]
)
def test_an_unknown_family_or_option_is_a_recipe_error(task: TaskPart) -> None:
    with pytest.raises(RecipeError, match=r"prompts\.tasks: chain_sum"):
        task_prompts([task], seed=0)


@pytest.mark.parametrize(("train", "heldout"), [(1, 1), (30, 10), (5, 20)])
def test_synthesis_fills_both_splits_exactly(train: int, heldout: int) -> None:
    part = PromptsPart(num_train=train, num_heldout=heldout)
    prompts = synthesise(writer([]), part, seed=0)
    assert [p.split for p in prompts].count("train") == train
    assert [p.split for p in prompts].count("heldout") == heldout
    assert len({p.digest for p in prompts}) == train + heldout
    share = heldout / (train + heldout)
    assert all(split_of(p.messages, heldout_share=share) == p.split for p in prompts)
    assert synthesise(writer([]), part, seed=0) == prompts


def test_synthesis_repeats_neither_itself_nor_what_is_known() -> None:
    part = PromptsPart(num_train=10, num_heldout=10)
    before = synthesise(writer([]), part, seed=0)
    after = synthesise(writer([]), part, seed=0, known=before)
    assert {p.digest for p in before}.isdisjoint({p.digest for p in after})


def test_only_finished_turns_are_prompts_and_a_mute_teacher_is_given_up() -> None:
    rounds: list[int] = []

    def mute(n: int, sampling: Sampling) -> list[Exchange]:
        rounds.append(n)
        return [written(" ".join(WORDS[:6]), sampling, "length")] * n

    with pytest.raises(DataError, match="wrote only 0 usable prompts in 20 rounds"):
        synthesise(mute, PromptsPart(num_train=2, num_heldout=2), seed=0)
    assert len(rounds) == 20


def test_a_teacher_that_repeats_itself_is_given_up() -> None:
    def parrot(n: int, sampling: Sampling) -> list[Exchange]:
        return [written("the same five words again", sampling)] * n

    with pytest.raises(DataError, match="wrote only 1 usable prompts"):
        synthesise(parrot, PromptsPart(num_train=2, num_heldout=2), seed=0)
