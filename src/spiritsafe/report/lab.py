"""A measurement's page: models by tasks with the control off and on, what changed, and single prompts masked.

Reads verdicts.json, cases.json and control.json of a measured folder, never a model. English or German.
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from spiritsafe.record import Verdict, read_json, write_atomic
from spiritsafe.report.render import render
from spiritsafe.report.text import figure_text, interval_text, visible

Language = Literal["en", "de"]
SHOWN_CASES = 200
WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Measured", "table": "Models and tasks", "model": "model", "changes": "What differs",
        "stages": "What the risk control did", "cases": "Single prompts, masked", "saturated": "tells nothing apart",
        "note": "95 % intervals. A column in which every model reaches 95 % tells nothing apart and is in no mean.",
        "value": "value", "interval": "95 % interval", "p": "p, Holm", "says": "says", "setting": "setting",
        "settled": "settled", "time": "stages p50 / p99, ms", "reviews": "reviews",
        "least": "least difference that would be found", "limits": "Limits",
        "more": "not shown", "partial": "This measurement is not whole; its budget ended it:",
    },
    "de": {
        "title": "Messung", "table": "Modelle und Aufgaben", "model": "Modell", "changes": "Was sich unterscheidet",
        "stages": "Was die Risikokontrolle tat", "cases": "Einzelne Eingaben, verdeckt", "saturated": "trennt nichts",
        "note": "95-%-Intervalle. Eine Spalte, in der jedes Modell 95 % erreicht, trennt nichts und zählt nicht mit.",
        "value": "Wert", "interval": "95-%-Intervall", "p": "p, Holm", "says": "Aussage", "setting": "Einstellung",
        "settled": "entschieden", "time": "Stufen p50 / p99, ms", "reviews": "Prüfungen",
        "least": "kleinster Unterschied, der gefunden würde", "limits": "Grenzen",
        "more": "nicht gezeigt", "partial": "Diese Messung ist nicht vollständig, das Budget war erschöpft:",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One metric of one task over all models and settings."""

    task: str
    metric: str
    saturated: bool
    cells: dict[str, tuple[str, str]]


def write_lab(folder: Path, *, language: Language = "en") -> Path:
    """Write `report.html` beside a measurement's results, atomically. Raises `DataError` where they are missing."""
    held = read_json(folder / "verdicts.json")
    verdicts = [Verdict.model_validate(v) for v in held["verdicts"]]
    cases = folder / "cases.json"
    control = folder / "control.json"
    css = (resources.files("spiritsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    shares = [v for v in verdicts if v.detail.get("metric") and v.p_value is None]
    page = render(
        "lab.html.jinja",
        _shown,
        {},
        css=Markup(css),
        language=language,
        stopped=held.get("stopped", ""),
        words=WORDS[language],
        columns=_columns(shares),
        subjects=list(dict.fromkeys(v.subject for v in shares)),
        others=[v for v in verdicts if v not in shares and "least_effect" not in v.detail],
        changes=[v for v in verdicts if "least_effect" in v.detail],
        stages=read_json(control)["stages"] if control.exists() else [],
        cases=_cases(read_json(cases)["cases"]) if cases.exists() else [],
        most=SHOWN_CASES,
        limits=list(dict.fromkeys(limit for v in verdicts for limit in v.limits if "would be found" not in limit)),
    )
    path = folder / "report.html"
    write_atomic(path, page)
    return path


def _columns(shares: list[Verdict]) -> list[Column]:
    columns = []
    for task, metric in dict.fromkeys((v.detail["task"], v.detail["metric"]) for v in shares):
        mine = [v for v in shares if (v.detail["task"], v.detail["metric"]) == (task, metric)]
        cells = {v.subject: (figure_text(v), interval_text(v)) for v in mine}
        columns.append(Column(task, metric, any(v.detail.get("saturated") for v in mine), cells))
    return columns


def _cases(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prompts on which the models or settings differ first, then the others."""
    return sorted(found, key=lambda case: len(set(case["outcomes"].values())) < 2)


def _shown(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.3g}"
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
