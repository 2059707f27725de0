"""`spiritsafe guard fit` and `guard card`, as they are typed."""

import json
from pathlib import Path

import pytest

from spiritsafe.guard.heads.answers import open_answers
from spiritsafe.guard.heads.heads import open_heads
from tests.conftest import Call


def test_fitted_heads_have_the_card_that_fit_printed(call: Call, cheese: Path, tmp_path: Path) -> None:
    code, printed, told = call(
        "guard", "fit", "xstest", "harmbench", "--data", str(cheese), "--no-encoders", "-o", "mine"
    )
    assert (code, told) == (0, "")
    assert call("guard", "card", "mine") == (0, printed, "")
    heads = open_heads(str(tmp_path / "mine"))
    assert heads.names == ("harmful",)
    assert json.loads(call("guard", "card", "mine", "--json")[1])["weights_sha256"] == heads.digest


def test_the_shipped_card_is_printed_without_a_word(call: Call) -> None:
    code, printed, _ = call("guard", "card")
    assert code == 0
    assert open_heads("shipped").digest in printed


def test_the_card_of_the_control_of_answers_is_printed(call: Call) -> None:
    code, printed, _ = call("guard", "card", "--answers")
    assert code == 0
    assert open_answers("shipped").digest in printed


def test_an_answer_is_checked_from_the_command_line(call: Call) -> None:
    code, printed, _ = call("guard", "check", "heads", "Bake the bread until it is brown.", "--side", "output")
    assert (code, printed) == (0, "pass\n")


def test_an_answer_is_checked_with_the_question_it_answers(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "heads"\nname = "mine"\n[answers]\npair = -100\n')
    words = ("guard", "check", "mine.toml", "Bake the bread until it is brown.", "--side", "output")
    scores = []
    for question in ("How do I bake bread?", "How do I kill a Python process?"):
        code, printed, _ = call(*words, "--asked", question, "--json")
        assert code == 0
        scores.append(sum(found["score"] for found in json.loads(printed)["findings"]))
    assert scores[0] != scores[1]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("fit", "xsafety-de"), 2, "may not be trained on"),
        (("fit", "xtest"), 2, "is no data set known here"),
        (("fit", "xstest", "--data", "nowhere"), 1, "--data DIR"),
        (("card", "nowhere"), 1, "spiritsafe guard fit -o DIR"),
        (("card", "nowhere", "--answers"), 1, "spiritsafe guard fit-answers -o DIR"),
        (("fit-answers",), 1, "--data DIR"),
        (("check", "heads", "x", "--asked", "y"), 2, "--side output"),
        (("check", "default", "x", "--side", "output"), 2, "has no rule or head that reads the output"),
    ],
)
def test_what_cannot_be_fitted_or_shown_says_why(call: Call, words: tuple[str, ...], code: int, reason: str) -> None:
    found, printed, told = call("guard", *words)
    assert (found, printed) == (code, "")
    assert reason in told
