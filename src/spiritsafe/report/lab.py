"""A measurement's page: models by tasks with the control off and on, what changed, and single prompts masked.

Reads verdicts.json, cases.json and control.json of a measured folder, never a model. English or German.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spiritsafe.errors import printable
from spiritsafe.record import Verdict, read_json, write_atomic
from spiritsafe.report.lab_words import (
    WORDS,
    Language,
    change_text,
    figures,
    is_german,
    limit_text,
    metric_word,
    name_text,
    outcome_word,
    settled_word,
    subject_text,
)
from spiritsafe.report.load import read_verdicts
from spiritsafe.report.render import render
from spiritsafe.report.text import figure_text, interval_text, is_share, p_text, scale_of, unit_text

SHOWN_CASES = 200


@dataclass(frozen=True)
class Cell:
    """A share as text, and how strongly it is coloured: 0 (good or not ranked) to 4."""

    figure: str
    interval: str
    heat: int


@dataclass(frozen=True)
class Row:
    """One metric of one task over all models and settings; `unit` is empty for shares."""

    task: str
    metric: str
    saturated: bool
    cells: dict[str, Cell]
    unit: str = ""


def write_lab(folder: Path, *, language: Language = "en") -> Path:
    """Write `report.html` beside a measurement's results, atomically. Raises `DataError` where they are missing."""
    held = read_json(folder / "verdicts.json")
    verdicts = list(read_verdicts(folder))
    cases, control = folder / "cases.json", folder / "control.json"
    css = (resources.files("spiritsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    shares = [v for v in verdicts if v.detail.get("metric") and v.p_value is None]
    page = render(
        "lab.html.jinja",
        _shown,
        _forms(language),
        css=Markup(css),
        language=language,
        stopped=held.get("stopped", ""),
        words=WORDS[language],
        rows=_rows(shares, language),
        subjects=list(dict.fromkeys(v.subject for v in shares)),
        others=_others([v for v in verdicts if v not in shares and "least_effect" not in v.detail], language),
        changes=[v for v in verdicts if "least_effect" in v.detail],
        stages=read_json(control)["stages"] if control.exists() else [],
        cases=_cases(read_json(cases)["cases"]) if cases.exists() else [],
        most=SHOWN_CASES,
        limits=list(dict.fromkeys(limit for v in verdicts for limit in v.limits if "would be found" not in limit)),
    )
    path = folder / "report.html"
    write_atomic(path, page)
    return path


def _forms(language: Language) -> dict[str, Callable[[Any], Any]]:
    """The template's filters, in one language."""
    return {
        "subject": partial(subject_text, language=language),
        "change": partial(change_text, language=language),
        "limit": partial(limit_text, language=language),
        "metric": partial(metric_word, language=language),
        "outcome": partial(outcome_word, language=language),
        "settled": partial(settled_word, language=language),
        "figure": lambda v: _figure(v, language),
        "interval": lambda v: figures(interval_text(v), language),
        "p": lambda p: figures(p_text(p), language),
        "unit": unit_text,
        "least": lambda v: figures(_least(v), language),
        "number": lambda value: "–" if value is None else figures(f"{value:.3g}", language),
        "is_german": is_german,
    }


def _least(verdict: Verdict) -> str:
    ending = "\u00a0%" if is_share(verdict.unit) else f" {unit_text(verdict)}"
    return f"{scale_of(verdict.unit) * verdict.detail['least_effect']:.2g}{ending}"


def _figure(verdict: Verdict, language: Language) -> str:
    return "–" if verdict.detail.get("said") is False else figures(figure_text(verdict), language)


def _between(verdict: Verdict, language: Language) -> str:
    return "" if verdict.detail.get("said") is False else figures(interval_text(verdict), language)


def _rows(shares: list[Verdict], language: Language) -> list[Row]:
    found = []
    for task, metric in dict.fromkeys((v.detail["task"], v.detail["metric"]) for v in shares):
        mine = [v for v in shares if (v.detail["task"], v.detail["metric"]) == (task, metric)]
        cells = {v.subject: Cell(_figure(v, language), _between(v, language), _heat(v)) for v in mine}
        found.append(Row(task, metric, any(v.detail.get("saturated") for v in mine), cells, unit_text(mine[0])))
    return found


def _others(verdicts: list[Verdict], language: Language) -> list[Row]:
    """Corrected, pooled and mean shares and bias scores: one row for each name."""
    found: dict[str, Row] = {}
    for v in verdicts:
        row = found.setdefault(v.name, Row(name_text(v, language), f"n = {v.n}", False, {}, unit_text(v)))
        row.cells[v.subject] = Cell(_figure(v, language), _between(v, language), 0)
    return list(found.values())


def _heat(verdict: Verdict) -> int:
    """0 to 4: how far from good a ranked share is."""
    better = verdict.detail.get("higher_is_better")
    if better is None or verdict.detail.get("said") is False:
        return 0
    return min(4, int(5 * (1 - verdict.value if better else verdict.value)))


def _cases(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompts on which the models or settings differ first, then the others."""
    return sorted(found, key=lambda case: len(set(case["outcomes"].values())) < 2)


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3g}"
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
