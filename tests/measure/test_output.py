"""Results for other programs: hostile names are no formula in a spreadsheet, and JUnit stays XML."""

import csv
from pathlib import Path
from xml.etree.ElementTree import parse

import pytest

from spiritsafe.measure.output import parse_gate, write_results
from spiritsafe.record import Verdict


def share(subject: str) -> Verdict:
    """A share that misses every gate."""
    detail = {"metric": "accuracy", "task": "gsm8k"}
    claim = f"{subject} solves none"
    return Verdict(
        room="measure", name="accuracy", subject=subject, claim=claim, value=0.0, n=3, method="m", detail=detail
    )


@pytest.mark.parametrize("name", ['=HYPERLINK("x")', "@SUM(1)", "-2+3", "+1", "\t=1", "\r=1"])
def test_a_name_is_no_formula(tmp_path: Path, name: str) -> None:
    write_results(tmp_path, [share(name)], [])
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["subject"][0] not in "=@-+\t\r"
    assert row["value"] == "0.0"


def test_control_characters_in_a_name_leave_junit_well_formed(tmp_path: Path) -> None:
    write_results(tmp_path, [share("bad\x1b\x00name")], [parse_gate("accuracy>=0.5")])
    failure = parse(tmp_path / "junit.xml").find(".//failure")
    assert failure is not None
    assert failure.get("message") == "bad⟨U+001B⟩⟨U+0000⟩name solves none"
