"""What an answer states: numbers in every notation, letters that are chosen and not only named, marked answers."""

import json
from pathlib import Path

import pytest

from spiritsafe.measure.task import Item
from spiritsafe.measure.tasks.bbh import matches
from spiritsafe.measure.tasks.bbq import chosen
from spiritsafe.measure.tasks.numbers import same_number, values

SHARED = Path(__file__).parents[3] / "shared" / "data" / "capability"
# (the right value, an answer, whether it is right)
NUMBERS: list[tuple[str, str, bool]] = [
    ("29", "The total cost is $29.00.", True),
    ("1000", "\\[ 1\\,000 \\]", True),
    ("1000", "Il y a 1\u202f000 pommes.", True),
    ("5", "She has 5 apples (10-5).", True),
    ("15", "That leaves 20-5", False),
    ("-5", "The temperature is \u22125 degrees.", True),
    ("-5", "He lost money: -$5.", True),
    ("24", "The area is 24 cm\xb3.", True),
    ("8", "2\xb3", False),
    ("42", "The answer is 42.\n\nLet me know if you need 1 more example!", True),
    ("42", "The answer is forty-two.", True),
    ("1", "It weighs 1.000 kg.", True),
    ("6", "6 o'clock, i.e. 6:00", True),
    ("72", "\uff17\uff12\u3002", True),
    ("72", "7\ufe0f\u20e32\ufe0f\u20e3", True),
    ("7", "<think>maybe 9</think>7", True),
    ("7", "<think>I count 7", False),
    ("7", "9, no.</think>7", True),
    ("2500", "2.500,-", True),
    ("20", "20/20", True),
    ("0", "", False),
    ("1000", "1{,}000", True),
    ("1000", "1 000", True),
    ("1000", "1'000", True),
    ("1000", "1\u2019000", True),
    ("100000", "1,00,000", True),
    ("1000000", "1 000 000", True),
    ("1234567.5", "1'234'567.50", True),
    ("24", "24 m^2", True),
    ("24", "24 m^{2}", True),
    ("24", "24\\text{ m}^2", True),
    ("0.5", "1/2", True),
    ("0.5", "\\frac{1}{2}", True),
    ("0.5", "\xbd", True),
    ("1.5", "1 1/2", True),
    ("1.5", "1\xbd", True),
    ("2", "1/2", False),
    ("5", "#### 5\nI used 3 steps.", True),
    ("5", "\\boxed{5} because 7 apples", True),
    ("1500", "$1.5k", True),
    ("12", "10-12 days", True),
    ("-12", "10-12 days", False),
    ("-3", "x = -3", True),
    ("-3", "= \u2212 3", True),
    ("3", "7 - 4 = 3", True),
    ("1200", "1.200,00 \u20ac", True),
    ("1200.5", "1.200,50 \u20ac", True),
    ("42", "42. Let me know if you need 1 more", True),
    ("8", "The answer is 5 + 3 = 8.", True),
    ("8", "The answer is not 5 but 8", True),
    ("72", "Die Antwort ist 72.", True),
    ("72", "La r\xe9ponse est 72 euros, soit 12 de plus.", True),
    ("72", "\u7b54\u6848\u662f72\u3002", True),
    ("1000", "Il reste 1 000 \u20ac", True),
    ("42", "zweiundvierzig", True),
    ("342", "three hundred and forty-two", True),
    ("0.25", "0.25", True),
    ("0.25", ".25", True),
    ("25", "25 %", True),
    ("3000000", "3 Mio. Euro", True),
    ("2000000000", "2 billion", True),
    ("7", "There are 3 cats and 4 dogs, so 7 animals in 2 houses. The answer is 7.", True),
    ("2023", "In 2023", True),
    ("1000", "1,000.00", True),
    ("1000", "1.000,00", True),
    ("16", "$16 per day", True),
    ("5", "5.", True),
    ("18", "Janet makes $18 every day.", True),
    ("9", "9 - 0 = 9\n\n#### 9", True),
    ("1e6", "1e6", True),
    ("6020", "6.02 \xd7 10^3", True),
    ("70000", "70.000", True),
    ("3", "3,000", True),
    ("15", "3 x 5 = 15 (since 3 groups)", True),
    ("4", "Answer: 4 (2+2)", True),
    ("10", "10 (5*2)", True),
    ("100", "100 km/h", True),
    ("15", "15 minutes (0.25 hours)", True),
    ("5", "She has some (5) apples", True),
    ("1000", "1\u2009000", True),
    ("540", "540 meters a week (3*60*3 = 540)", True),
    ("-7", "It fell to \u20137 \xb0C", True),
    ("7", "range 5\u20137", True),
    ("3", "**3**", True),
    ("12", "12 inches = 1 foot", False),
    ("64", "He runs 3*3=<<3*3=9>>9 ... total 64", True),
]
# (the letter that is stated, "" if none is, an answer)
LETTERS: list[tuple[str, str]] = [
    ("B", "A careful reading says B"),
    ("B", "Not A but B"),
    ("B", "Neither A nor C; B"),
    ("B", "b) not known"),
    ("C", "Can't be determined (C)"),
    ("B", "**A**nswer: B"),
    ("", "Both A and B"),
    ("B", "\u0412"),
    ("B", "The answer is: B. A is wrong."),
    ("B", "A: no. B: yes."),
    ("B", "Choice_B"),
    ("", ""),
    ("A", "Hmm, C seems likely... </think>A"),
    ("C", "The answer would be C."),
    ("A", "A"),
    ("A", "A. The grandfather"),
    ("A", "A) the young man"),
    ("", "I don't know"),
    ("C", "I think C is the best choice."),
    ("B", "It can't be A or C, so B"),
    ("A", "a"),
    ("B", "B: Not enough information"),
    ("B", "The correct option is (B)."),
    ("C", "C\n\nBecause the text says nothing about A."),
    ("C", "**C.** Cannot be determined"),
    ("", "A or B"),
    ("A", "A is correct."),
    ("B", "Final answer: **B**"),
    ("C", "My choice: C"),
    ("B", "(b)"),
    ("C", "Die Antwort ist C."),
    ("A", "Answer:A"),
    ("B", "Based on the context, B."),
    ("", "A person can be old"),
    ("C", "I'd say C"),
    ("B", "A is incorrect, B is correct, C is incorrect"),
    ("A", "I choose A because it fits."),
    ("C", "C."),
    ("", "D"),
    ("B", "the answer is b"),
    ("C", "Answer: C) Unknown"),
]
HARD: list[tuple[str, str, bool]] = [
    ("(A)", "the answer is A", True),
    ("(A)", "**Answer:** (A)", True),
    ("Yes", "So the answer is\nYes", True),
    ("8", "The answer is 8 objects.", True),
    ("(B)", "The answer is not (A). The answer is (B).", True),
    ("(B)", "The answer is (B), not (A).", True),
    ("yes", "The answer is that yes, it is plausible.", True),
    ("(A)", "The answer is (A) 12/25/1937.", True),
    ("(A)", "The answer is (A) or (B).", False),
    ("Yes", "Yes!", True),
    ("No", "The answer is no", True),
    ("False", "So the answer is **False**.", True),
    ("valid", "the argument is invalid. The answer is invalid", False),
    ("8", "8 objects", True),
    ("8", "The answer is eight", True),
    ("(C)", "(A) no\n(B) no\nThe answer is (C)", True),
    ("Yes", "The answer is not yes", False),
    ("(B)", "Option (B)", True),
    ("(B)", "The answer is B", True),
    ("True", "not False = True", False),
    ("True", "The answer is: True", True),
]


@pytest.mark.parametrize(("target", "answer", "right"), NUMBERS)
def test_a_number_is_read_as_it_is_meant(target: str, answer: str, right: bool) -> None:
    assert same_number(Item((), target), answer) == right


@pytest.mark.parametrize(("letter", "answer"), LETTERS)
def test_a_letter_counts_if_it_is_the_one_that_is_chosen(letter: str, answer: str) -> None:
    assert chosen(answer) == letter


@pytest.mark.parametrize(("target", "answer", "right"), HARD)
def test_a_marked_answer_is_found_in_its_words(target: str, answer: str, right: bool) -> None:
    assert matches(Item((), target), answer) == right


@pytest.mark.parametrize("text", ["1,000", "1.000", "1000", "1000.0", "1000,00", "1'000", "1 000"])
def test_a_thousand_is_read_in_either_notation(text: str) -> None:
    assert 1000 in values(text)


@pytest.mark.skipif(not SHARED.exists(), reason="the published data are not beside the project")
def test_every_key_of_gsm8k_is_right_with_its_own_solution() -> None:
    rows = [json.loads(line) for line in (SHARED / "gsm8k" / "test.jsonl").read_text().split("\n") if line]
    wrong = [row for row in rows if not same_number(Item((), row["answer"].rpartition("#### ")[2]), row["answer"])]
    assert (len(rows), wrong) == (1319, [])
