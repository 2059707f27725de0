"""Errors: one line that says where, what and what to do next, and the exit code of the boundary."""

from pathlib import Path

import pytest

from spiritsafe import errors
from spiritsafe.errors import (
    GateError,
    MissingExtra,
    RecipeError,
    RunError,
    SpiritsafeError,
    missing_module,
    printable,
    writing,
)
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


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("hyperscan", "pip install 'spiritsafe[guard]'"),
        ("ray", "pip install 'spiritsafe[ray]'"),
        ("transformers.models", "pip install 'spiritsafe[torch]'"),
        ("starlette", "pip install --force-reinstall spiritsafe"),
        ("nobody_knows", "pip install nobody-knows"),
    ],
)
def test_a_missing_module_is_told_with_what_brings_it(module: str, told: str) -> None:
    assert told in str(missing_module(ModuleNotFoundError(f"No module named '{module}'", name=module)))


def test_hidden_characters_are_spelled_out_and_the_rest_stays() -> None:
    assert printable("Grüße, 世界 🙂\n\tok") == "Grüße, 世界 🙂\n\tok"
    assert printable("a\x1b[31m\u202eb\x00") == "a⟨U+001B⟩[31m⟨U+202E⟩b⟨U+0000⟩"
