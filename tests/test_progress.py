"""Progress: a log has a line for each stage with its time, and no escape of anybody's."""

import re

import pytest

from spiritsafe.progress import Show, warn


def test_a_log_has_lines_with_their_time_and_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show()
    show.say("teacher ...")
    with show.bar("answers", 3) as tick:
        tick()
    assert re.fullmatch(r"\d\d:\d\d:\d\d teacher \.\.\.\n", capsys.readouterr().err)


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Show(quiet=True).say("teacher ...")
    assert capsys.readouterr().err == ""


def test_escapes_in_names_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Show().say("model \x1b]0;pwned\x07evil")
    warn("\x1b[2Jred")
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "⟨U+001B⟩]0;pwned⟨U+0007⟩evil" in said
