"""What a measurement leaves (verdicts, table, junit.xml, control, cases, unanswered, evidence), and gates on shares."""

import csv
import io
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from spiritsafe.errors import DataError, UsageError, printable
from spiritsafe.record import (
    Verdict,
    bytes_digest,
    digest_of,
    read_json,
    verdict_file,
    write_atomic,
    write_json,
)

FORM = re.compile(r"(?:(?P<task>[^<>=]+)\.)?(?P<metric>\w+)(?P<sign><=|>=|<|>)(?P<bound>\d*\.?\d+)")
SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
RESULTS = ("verdicts.json", "cases.json", "control.json", "unanswered.json")  # what the report reads
EVIDENCE = "evidence.json"
AGAIN = "put the file back as it was, or measure again with another -o DIR"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = (
    "name", "subject", "value", "low", "high", "n", "p_value", "p_adjusted", "least_effect", "saturated", "claim",
    "limits",
)  # fmt: skip


@dataclass(frozen=True)
class Gate:
    """A bound on the share of one metric, on one task or on all that have it."""

    text: str
    task: str
    metric: str
    sign: str
    bound: float

    def failures(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The shares that miss the bound, or cannot be said. Raises `UsageError` where the table has no such share."""
        named = [v for v in verdicts if v.detail.get("metric") == self.metric and v.p_value is None]
        judged = [v for v in named if self.task in ("", v.detail.get("task"))]
        if not judged:
            raise UsageError(f"--gate {self.text}", "the table has no such share", "name its metric or TASK.METRIC")
        return [v for v in judged if v.detail.get("said") is False or not SIGNS[self.sign](v.value, self.bound)]


def parse_gate(text: str) -> Gate:
    """Parse `METRIC<=0.05` or `TASK.METRIC>=0.4`. Raises `UsageError`."""
    found = FORM.fullmatch(text.replace(" ", ""))
    if not found:
        raise UsageError(f"--gate {text}", "is not a gate", "e.g. accuracy>=0.4 or gsm8k.accuracy>=0.4")
    return Gate(text, found["task"] or "", found["metric"], found["sign"], float(found["bound"]))


def write_results(
    folder: Path,
    verdicts: Sequence[Verdict],
    gates: Sequence[Gate],
    *,
    stages: Sequence[dict[str, Any]] = (),
    told: Sequence[dict[str, Any]] = (),
    unanswered: Sequence[dict[str, str]] = (),
    stopped: str = "",
    computed: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write verdicts.json, table.csv, junit.xml with one test case for each gate, and what else there is.

    control.json holds what the risk control's stages settled and took; times differ from run to run. cases.json
    holds what is `told` of single prompts, masked. `stopped` is the budget that ended the measurement: no gate is
    judged then, and junit.xml holds the one failure that it is not whole. `computed`: see `verdict_file`. evidence.json
    holds the digests of these and of all answers.
    """
    write_json(folder / "verdicts.json", verdict_file(verdicts, stopped=stopped, computed=computed))
    write_atomic(folder / "table.csv", _csv(verdicts))
    write_atomic(folder / "junit.xml", _unfinished(stopped) if stopped else _junit(verdicts, gates))
    if stages:
        write_json(folder / "control.json", {"version": 1, "stages": list(stages)})
    if told:
        write_json(folder / "cases.json", {"version": 1, "cases": list(told)})
    (folder / "unanswered.json").unlink(missing_ok=True)  # of an attempt before this one
    if unanswered:
        write_json(folder / "unanswered.json", {"version": 1, "unanswered": list(unanswered)})
    _write_evidence(folder)


def check_measurement(folder: Path) -> None:
    """Raise `DataError` if what a measurement rests on, answers above all, is not as it was when it was written.

    Answers that were added since, by another measurement in the same folder, are no change.
    """
    path = folder / EVIDENCE
    record = read_json(path)
    if not isinstance(record, dict) or record.get("seal") != _seal(record):
        raise DataError(str(path), "was changed since it was written: its seal does not match", AGAIN)
    for name, known in record["files"].items():
        file = folder / name
        if not file.is_file() or _prefix(file, known["bytes"]) != known:
            raise DataError(str(file), "was changed since the verdicts were written: its digest does not match", AGAIN)


def _write_evidence(folder: Path) -> None:
    names = [name for name in RESULTS if (folder / name).is_file()]
    names += sorted(path.relative_to(folder).as_posix() for path in (folder / "exchanges").rglob("*.jsonl"))
    files = {name: _prefix(folder / name, (folder / name).stat().st_size) for name in names}
    record = {"version": 1, "files": files}
    write_json(folder / EVIDENCE, record | {"seal": _seal(record)})


def _prefix(path: Path, size: int) -> dict[str, Any]:
    """How many bytes a file begins with, at most so many, and their sha256."""
    data = path.read_bytes()[:size]
    return {"bytes": len(data), "sha256": bytes_digest(data)}


def _seal(record: Mapping[str, Any]) -> str:
    return digest_of({key: value for key, value in record.items() if key != "seal"})


def _cell(value: object) -> object:
    """A value of the table; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _csv(verdicts: Sequence[Verdict]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for v in verdicts:
        said = v.detail.get("said") is not False
        low, high = (v.interval if said else None) or ("", "")
        told = v.detail.get("least_effect"), v.detail.get("saturated"), v.claim, "; ".join(v.limits)
        row = [v.name, v.subject, v.value if said else "", low, high, v.n, v.p_value, v.p_adjusted, *told]
        table.writerow([_cell(value) for value in row])
    return text.getvalue()


def _junit(verdicts: Sequence[Verdict], gates: Sequence[Gate]) -> str:
    failed = {gate.text: gate.failures(verdicts) for gate in gates}
    count = {"tests": str(len(gates)), "failures": str(sum(bool(f) for f in failed.values()))}
    suite = Element("testsuite", {"name": "spiritsafe measure", **count})
    for text, missed in failed.items():
        case = SubElement(suite, "testcase", {"classname": "gate", "name": printable(text)})
        if missed:
            # XML has no way to write most control characters.
            SubElement(case, "failure", {"message": printable("; ".join(v.claim for v in missed))})
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _unfinished(stopped: str) -> str:
    suite = Element("testsuite", {"name": "spiritsafe measure", "tests": "1", "failures": "1"})
    case = SubElement(suite, "testcase", {"classname": "budget", "name": "the measurement is whole"})
    SubElement(case, "failure", {"message": printable(stopped)})
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
