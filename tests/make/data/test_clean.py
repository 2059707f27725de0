"""Decontamination: what is shown is found, what only looks alike is not, both views agree."""

import random

import pytest

from spiritsafe.make.data.clean import decontaminate
from spiritsafe.make.data.settings import CleanPart

QUESTION = (
    "Natalia bakes 1,200 small loaves every week and sells three quarters of them on Saturday; "
    "how many loaves are left for Sunday morning?"
)
CHINESE = "小明每天早上七点起床然后步行去学校请问他一周一共走了多少公里"


def hit(text: str, *evaluation: str, ngram: int = 13) -> bool:
    """Whether one training text shows one of the evaluation items."""
    return bool(decontaminate([[text]], {"set": evaluation}, CleanPart(ngram=ngram)).items)


def test_a_quoted_question_is_found_whatever_its_dress() -> None:
    assert hit("Solve this. " + QUESTION.upper().replace("1,200", "１200") + " Thanks!", QUESTION)
    assert hit(QUESTION.replace(";", " -").replace(" ", "\n"), QUESTION)
    assert hit("题目:" + CHINESE + "?", CHINESE)


def test_twelve_words_in_a_row_are_not_enough_for_thirteen_but_for_eight() -> None:
    words = QUESTION.split()
    part = " ".join(words[:12])
    assert not hit(part, QUESTION)
    assert hit(" ".join(words[:13]), QUESTION)
    assert hit(part, QUESTION, ngram=8)


def test_other_numbers_are_another_question() -> None:
    other = QUESTION.replace("1,200", "1,300").replace("three quarters", "one half").replace("Saturday", "Friday")
    assert not hit(other, QUESTION)


def test_a_short_item_counts_in_a_row_and_a_very_short_one_only_as_a_message() -> None:
    assert hit("so what is the capital of France, I asked", "What is the capital of France?")
    assert not hit("the capital of France is what I asked", "What is the capital of France?")
    assert not hit("Yes, he said", "yes")
    assert hit("Yes!", "yes")
    assert not hit("anything", "")


def test_an_n_gram_does_not_reach_across_messages() -> None:
    words = QUESTION.split()
    item = [" ".join(words[:11]), " ".join(words[11:])]
    assert not decontaminate([item], {"set": [QUESTION]}, CleanPart()).hits
    assert decontaminate([[" ".join(item)]], {"set": [QUESTION]}, CleanPart()).hits


def test_boilerplate_of_a_set_proves_nothing() -> None:
    head = "Answer the following multiple choice question with exactly one letter out of A B C and D. "
    draw = random.Random(0)
    questions = [head + " ".join(f"q{draw.getrandbits(40)}" for _ in range(20)) for _ in range(30)]
    found = decontaminate([[head + "Which animal sings?"], [questions[4]]], {"set": [*questions, head]}, CleanPart())
    assert found.items == {1}
    [seen] = found.seen
    assert (seen.contaminated, seen.unjudged, seen.items) == (1, 1, 31)
    assert seen.boilerplate > 0


def test_both_views_agree_and_say_how_much() -> None:
    words = [f"w{i}" for i in range(200)]
    item = " ".join(words[:25])  # 13 n-grams
    training = [["nothing"], [" ".join(words[:13])], ["a", item], ["before " + item + " after"]]
    found = decontaminate(training, {"one": [item, "unseen " * 20], "two": [" ".join(words[100:130])]}, CleanPart())
    assert [(h.item, h.evaluation, h.index, h.rule) for h in found.hits] == [
        (1, "one", 0, "n-gram"),
        (2, "one", 0, "n-gram"),
        (3, "one", 0, "n-gram"),
    ]
    assert [h.overlap for h in found.hits] == [pytest.approx(1 / 13), 1.0, 1.0]
    assert found.hits[0].shared.startswith("w0 w1 w2")
    assert [(s.evaluation, s.contaminated, s.share) for s in found.seen] == [("one", 1, 0.5), ("two", 0, 0.0)]


def test_repetition_is_counted_once() -> None:
    phrase = " ".join(f"w{i}" for i in range(13))
    [found] = decontaminate([[f"{phrase} x " * 5]], {"set": [f"{phrase} y {phrase}"]}, CleanPart()).hits
    assert found.overlap < 1


def test_planted_items_are_all_found_among_thousands_and_nothing_else() -> None:
    draw = random.Random(3)
    text = [" ".join(f"w{draw.randrange(3000)}" for _ in range(40)) for _ in range(2000)]
    held, training = text[:200], [[t] for t in text[200:]]
    for i in range(50):
        training[i * 7] = [f"{training[i * 7][0]} {held[i]}"]
    found = decontaminate(training, {"set": held}, CleanPart())
    assert found.items == {i * 7 for i in range(50)}
    assert found.seen[0].contaminated == 50


def test_nothing_against_nothing_is_clean() -> None:
    assert not decontaminate([], {"set": ["a b"]}, CleanPart()).hits
    assert not decontaminate([["a"]], {"set": []}, CleanPart()).hits
    assert decontaminate([["a"]], {}, CleanPart()).seen == ()
