"""The terminal's table and the JSON: the same numbers, safe to print."""

import json
from io import StringIO

from rich.console import Console

from spiritsafe.record import Verdict
from spiritsafe.report.table import natural_width, verdict_table, verdicts_json
from spiritsafe.report.text import interval_text, plain_p_text


def printed(verdicts: list[Verdict], width: int = 100) -> str:
    """The table as a terminal of `width` columns shows it."""
    out = StringIO()
    Console(file=out, width=width).print(verdict_table(verdicts))
    return out.getvalue()


def test_the_table_fits_100_columns_and_cuts_no_number(verdicts: list[Verdict]) -> None:
    text = printed(verdicts)
    assert max(map(len, text.splitlines())) <= 100
    for verdict in verdicts:
        (row, *_) = [line for line in text.splitlines() if verdict.subject in line and interval_text(verdict) in line]
        assert str(verdict.n) in row
        assert verdict.p_adjusted is None or plain_p_text(verdict.p_adjusted) in text


def test_at_its_natural_width_nothing_wraps(verdicts: list[Verdict]) -> None:
    long = [
        v.model_copy(update={"subject": f"{v.subject} of a run with a rather long name {i}" * 2})
        for i, v in enumerate(verdicts)
    ]
    width = natural_width(verdict_table(long))
    lines = printed(long, width).splitlines()
    assert width > 120
    assert all(any(v.subject in line and interval_text(v) in line for line in lines) for v in long)
    assert max(map(len, lines)) <= width


def test_a_verdict_against_the_truth_has_a_sign_of_its_own(verdicts: list[Verdict]) -> None:
    wrong = verdicts[-1].model_copy(update={"rejected": True, "holds": False})
    assert "rejects ✗" in printed([wrong])
    assert "keeps ✓" in printed([verdicts[-1]])


def test_the_watch_says_alarm_and_no_alarm_and_marks_are_explained_only_if_there_is_one(
    verdicts: list[Verdict],
) -> None:
    update = {"name": "extraction watch", "room": "guard", "holds": None}
    watched = [verdicts[-1].model_copy(update={**update, "rejected": rejected}) for rejected in (True, False)]
    first, second = (line.split()[-2:] for line in printed(watched).splitlines() if verdicts[-1].subject in line)
    assert (first[-1], second) == ("alarm", ["no", "alarm"])
    assert "✓" not in printed(watched)
    assert "✓ agrees with" in printed([verdicts[-1].model_copy(update={"holds": True})])


def test_markup_and_terminal_codes_in_names_are_shown_and_do_nothing(verdicts: list[Verdict]) -> None:
    hostile = verdicts[0].model_copy(update={"subject": "[red]x[/red]\x1b[2J\u202e"})
    text = printed([hostile], width=140)
    assert "[red]x[/red]⟨U+001B⟩[2J⟨U+202E⟩" in text
    assert "\x1b" not in text


def test_the_json_gives_back_the_same_verdicts(verdicts: list[Verdict]) -> None:
    held = json.loads(verdicts_json(verdicts))
    assert held["version"] == 1
    assert [Verdict.model_validate_json(json.dumps(v)) for v in held["verdicts"]] == verdicts
