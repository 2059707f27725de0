"""Prompts of a making: every form of file is read, and what cannot be read is named with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import DataError
from spiritsafe.make.verb.prompts import read_prompts
from spiritsafe.make.verb.settings import MakeSettings
from spiritsafe.prompts import Prompt
from spiritsafe.recipe import parse_any
from spiritsafe.record import Exchange, Sampling


def nobody(num: int, sampling: Sampling) -> list[Exchange]:
    """A teacher that must not be asked."""
    raise AssertionError


def read(path: Path, share: float = 0.0, **more: Any) -> list[Prompt]:
    """The prompts of a file."""
    data = {"kind": "make", "run": {"name": "m"}, "teacher": {"model": "fake:echo"}, "method": "text", "student": "./s"}
    settings = parse_any({**data, "prompts": str(path), **more})
    assert isinstance(settings, MakeSettings)
    return read_prompts(settings, share, nobody)


def write(path: Path, *rows: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_come_by_any_of_their_names_and_equal_ones_once(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "five"}]
    named = [{"prompt": "one"}, {"question": "two"}, {"instruction": "three"}, {"text": "four"}, {"messages": turns}]
    found = read(write(tmp_path / "p.jsonl", *named, {"text": "one"}))
    assert [p.messages[-1].content for p in found] == ["one", "two", "three", "four", "five"]
    assert [m.role for m in found[-1].messages] == ["system", "user"]
    (tmp_path / "p.txt").write_text("one\n\n two \n")
    assert [p.messages[-1].content for p in read(tmp_path / "p.txt")] == ["one", "two"]


def test_a_question_with_its_answer_is_checked_by_what_follows_the_marks(tmp_path: Path) -> None:
    found = read(write(tmp_path / "p.jsonl", {"question": "2 + 3?", "answer": "It is so.\n#### 5"}, {"prompt": "x"}))
    assert [p.options for p in found] == [{"answer": "5"}, {}]


def test_a_split_follows_from_the_content_and_a_limit_from_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", *({"prompt": f"number {i}"} for i in range(200)))
    every = read(path, 0.25)
    assert 25 < sum(p.split == "heldout" for p in every) < 75
    some = read(path, 0.25, limit=20)
    assert len(some) == 20
    assert some == [p for p in every if p in some] != every[:20]
    assert some == read(path, 0.25, limit=20) != read(path, 0.25, limit=20, run={"name": "m", "seed": 1})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("7", "line 2 is no object"),
        (
            '{"colour": "x"}',
            "line 2 has no prompt; it has colour; name it prompt, question, instruction, query",
        ),
        ('{"prompt": " "}', "line 2 has no prompt: its prompt is empty"),
        ('{"messages": [{"role": "judge", "content": "x"}]}', "line 2 is broken: its turn 1 has the role 'judge'"),
        ('{"messages": 5}', "line 2 is broken: its messages is no list of turns"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"p\.jsonl: ") as caught:
        read(path)
    assert said in str(caught.value)


def test_a_file_without_a_prompt_to_learn_from_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no prompt"):
        read(tmp_path / "p.txt")
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match=r"has no prompt to learn from \(2 held out\)"):
        read(tmp_path / "p.txt", share=1.0)
