"""Behaviours: from a file, chosen by the seed, never from the lines that rules were tuned on."""

from pathlib import Path

import pytest

from spiritsafe.errors import DataError
from spiritsafe.measure.safety.suites import behaviours


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Twenty harmless lines, some space between them."""
    (tmp_path / "b.txt").write_text("\n\n".join(f"  line {i}  " for i in range(1, 21)) + "\n")
    return tmp_path / "b.txt"


def chosen(path: Path, num: int, seed: int = 0, first: int = 1) -> list[int]:
    """Numbers of the lines that were chosen."""
    found = behaviours(str(path), num=num, seed=seed, first=first)
    assert all(len(prompt) == 1 and prompt[0].role == "user" for prompt in found)
    return [int(prompt[0].content.removeprefix("line ")) for prompt in found]


def test_all_of_them_are_all_lines_in_order(path: Path) -> None:
    assert chosen(path, 20) == list(range(1, 21))


def test_a_choice_is_the_seed_s_without_repetition(path: Path) -> None:
    assert chosen(path, 8) == chosen(path, 8) == sorted(set(chosen(path, 8)))
    assert len({tuple(chosen(path, 8, seed)) for seed in range(5)}) > 1


def test_lines_before_the_first_are_left_out(path: Path) -> None:
    assert chosen(path, 5, first=16) == [16, 17, 18, 19, 20]


@pytest.mark.parametrize(("num", "first", "left"), [(21, 1, 20), (6, 16, 5), (1, 99, 0)])
def test_too_few_are_said_with_what_to_lower(path: Path, num: int, first: int, left: int) -> None:
    said = f"holds {left} behaviours from line {first} on, {num} are wanted; lower measure.safety_prompts"
    with pytest.raises(DataError, match=said):
        chosen(path, num, first=first)


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; set measure\.behaviours to"):
        chosen(tmp_path / "none.txt", 1)


def test_only_a_line_break_ends_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "separators.txt"
    path.write_text("one\u2028still one\r\ntwo\x85still two\n", encoding="utf-8", newline="")
    said = [prompt[0].content for prompt in behaviours(str(path), num=2, seed=0)]
    assert said == ["one\u2028still one", "two\x85still two"]
