"""Errors: one line that says where, what and what to do next, and the exit code of the boundary."""

from pathlib import Path

import pytest

from spiritsafe import errors
from spiritsafe.errors import GateError, MissingExtra, RecipeError, RunError, SpiritsafeError, writing
from spiritsafe.record import Message, append_jsonl

FULL = Path("/dev/full")


def test_an_error_says_where_what_and_what_to_do_next() -> None:
    assert str(RunError("runs/a", "is locked", "wait for the other run")) == "runs/a: is locked; wait for the other run"
    assert str(RunError("runs/a", "is locked")) == "runs/a: is locked"


def test_exit_codes_tell_a_failure_from_wrong_usage_from_a_missed_gate() -> None:
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind is not SpiritsafeError and issubclass(kind, SpiritsafeError)
    }
    assert codes == {1, 2, 3}
    assert (RunError.exit_code, RecipeError.exit_code, GateError.exit_code) == (1, 2, 3)


def test_a_missing_extra_names_the_pip_command() -> None:
    assert "pip install 'spiritsafe[torch]'" in str(MissingExtra("torch", "torch"))


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_that_says_so() -> None:
    with pytest.raises(RunError, match=r"/dev/full: No space left.*; free some disk space") as caught:
        append_jsonl(FULL, [Message(role="user", content="Hello.")])
    assert "\n" not in str(caught.value)


def test_a_refusal_without_advice_still_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone/x: No such file"), writing(tmp_path / "gone" / "x"):
        (tmp_path / "gone" / "x").write_text("")


def test_an_error_that_is_not_the_systems_passes_through(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("ours")
