"""The story in one screen: a headline and four tiles, each sentence derived from verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

from spiritsafe.record import Verdict
from spiritsafe.report.figures import should_reject
from spiritsafe.report.load import RunData
from spiritsafe.report.text import figure_text, interval_text, p_text, unit_text, value_text


@dataclass(frozen=True)
class Tile:
    """One room's main number: what it is of, its interval or basis, and what it means."""

    room: str
    label: str
    figure: str
    unit: str
    basis: str
    meaning: str
    holds: bool | None


def headline(run: RunData) -> str:
    """What the watch and the proof say of the account that drew off, in one sentence."""
    watch = _watch(run.verdicts, run.drawing_account)
    said = "was not judged" if watch is None else "noticed" if watch.rejected else "did not notice"
    opening = "The watch was not run" if watch is None else f"The watch {said} the account that drew off the teacher"
    tests = [v for v in run.verdicts if v.name == "twin-sample test" and should_reject(v) is not None]
    if not tests:
        return f"{opening}; no proof was tried."
    learned, others = [v for v in tests if should_reject(v)], [v for v in tests if not should_reject(v)]
    return (
        f"{opening}; its answers are traced to {_found(learned)} models that learned from them, with {_alarms(others)}."
    )


def against(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts that disagree with the run's ground truth."""
    return [v for v in verdicts if v.holds is False]


def tiles(run: RunData) -> list[Tile]:
    """The main number of each room; a room without its verdict has a tile that says so."""
    v, account = run.verdicts, run.drawing_account
    return [
        _value_tile(
            "make", "distance to the teacher", _first(v, "kl to teacher", "student"), _before(v, "kl to teacher")
        ),
        _value_tile(
            "measure",
            "agreement with the teacher",
            _first(v, "top-1 agreement", "student"),
            _before(v, "top-1 agreement"),
        ),
        _test_tile("guard", f"watch on {account}", _watch(v, account), _ordinary(v, account)),
        _test_tile("prove", f"{account}'s answers in the student", _twin(v, account), _alarm_line(v)),
    ]


def _value_tile(room: str, label: str, verdict: Verdict | None, meaning: str) -> Tile:
    if verdict is None:
        return _empty(room, label)
    low_high = interval_text(verdict)
    basis = f"{verdict.confidence * 100:.3g}\u00a0% interval {low_high}, n\u00a0=\u00a0{verdict.n:,}"
    return Tile(room, label, figure_text(verdict), unit_text(verdict), basis, meaning, verdict.holds)


def _test_tile(room: str, label: str, verdict: Verdict | None, meaning: str) -> Tile:
    if verdict is None:
        return _empty(room, label)
    adjusted = room == "prove" and verdict.p_adjusted is not None
    p_value = verdict.p_adjusted if adjusted else verdict.p_value
    figure = "no p-value" if p_value is None else f"p = {p_text(p_value)}"
    around = f", 95 % interval {interval_text(verdict)}" if verdict.interval and verdict.confidence == 0.95 else ""
    shown = f"mean rank {figure_text(verdict)}" if room == "prove" else f"score {value_text(verdict)}"
    basis = f"{shown}{around}, n\u00a0=\u00a0{verdict.n:,}"
    return Tile(room, label, figure, "", basis, meaning, verdict.holds)


def _empty(room: str, label: str) -> Tile:
    return Tile(room, label, "–", "", "not measured in this run", "", None)


def _first(verdicts: Sequence[Verdict], name: str, subject: str) -> Verdict | None:
    return next((v for v in verdicts if v.name == name and v.subject == subject), None)


def _watched(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [v for v in verdicts if v.room == "guard" and v.p_value is not None]


def _watch(verdicts: Sequence[Verdict], account: str) -> Verdict | None:
    return next((v for v in _watched(verdicts) if v.subject == account), None)


def _twin(verdicts: Sequence[Verdict], account: str) -> Verdict | None:
    return _first(verdicts, "twin-sample test", f"{account} x student")


def _before(verdicts: Sequence[Verdict], name: str) -> str:
    start = _first(verdicts, name, "pruned start")
    return f"The pruned start was at {value_text(start)} ({interval_text(start)})." if start else ""


def _ordinary(verdicts: Sequence[Verdict], account: str) -> str:
    others = [v for v in _watched(verdicts) if v.subject != account]
    return f"{sum(bool(v.rejected) for v in others)} of {len(others)} ordinary accounts flagged."


def _alarm_line(verdicts: Sequence[Verdict]) -> str:
    others = [v for v in verdicts if v.name == "twin-sample test" and should_reject(v) is False]
    return f"{_alarms(others)[:1].upper()}{_alarms(others)[1:]}." if others else ""


def _found(learned: Sequence[Verdict]) -> str:
    return f"{sum(bool(v.rejected) for v in learned)} of {len(learned)}"


def _alarms(others: Sequence[Verdict]) -> str:
    num = sum(bool(v.rejected) for v in others)
    return f"{num or 'no'} false alarm{'' if num == 1 else 's'} in {len(others)} other tests"
