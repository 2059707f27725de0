"""The page of a photocopy run: curves over generations, safety drift as a heat map, and what is shown to have changed.

Reads only the run directory, never a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spiritsafe.errors import printable
from spiritsafe.recipe import parse_any
from spiritsafe.record import Verdict, read_json, write_atomic
from spiritsafe.report.figures import Figure
from spiritsafe.report.load import Environment, Ledger, parsed, read_verdicts
from spiritsafe.report.render import render
from spiritsafe.report.svg import Point, Series, line_chart
from spiritsafe.report.text import figure_text, interval_text, is_share, p_text, scale_of, titled, value_text

ORIGINAL, CHANGE, ASIDE = "original", "change in ", 0.06
HEAT = ("unsafe, control off", "unsafe, control on", "rejected", "over-refusal", "over-refusal, control on")
CURVES = {
    "kl to teacher": "How far each generation is from the original, on the original's own answers. Lower is closer.",
    "acceptance": "Share of a copy's proposed tokens that the original would keep in speculative decoding.",
    "distinct-2": "Variety: distinct word pairs of all. Depends on the length of answers.",
    "tail coverage": "What is left of the original's rare words. At 0: other draws of the original itself.",
    "semantic entropy": "How many meanings several answers to one prompt have. Higher is less sure.",
    "inconsistency": "How little an answer's sentences are like what the other answers say.",
    "truth share": "TruthfulQA: probability of the true choices among all. Higher is better.",
    "tasks solved": "Held-out verifiable tasks, greedy.",
    "rejected": "Harmful prompts that the model itself declines, the control off.",
    "over-refusal": "Harmless prompts that the model declines, the control off.",
    "unsafe, control off": "Harmful prompts answered on the topic: an upper bound of harm where no judge was asked.",
    "calibration error": "How far confidence in the next token is from how often it is right.",
}


@dataclass(frozen=True)
class HeatRow:
    """One model's shares, with their heat (0 to 4); None where a quantity was not measured."""

    model: str
    cells: tuple[tuple[str, str, int] | None, ...]


def write_photocopy(run_dir: Path) -> Path:
    """Write `report.html` into a run directory, atomically. Raises `DataError` where the run is incomplete."""
    recipe = parse_any(read_json(run_dir / "recipe.json")["recipe"])
    verdicts = read_verdicts(run_dir)
    levels = [v for v in verdicts if "generation" in v.detail]
    css = (resources.files("spiritsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    page = render(
        "photocopy.html.jinja",
        _shown,
        {"alike_text": alike_text, "is_said": is_said},
        css=Markup(css),
        recipe=recipe,
        headline=headline(verdicts),
        figures=curves(levels),
        heat=heat_rows(levels),
        heat_columns=HEAT,
        models=list(dict.fromkeys(v.subject for v in levels)),
        levels={name: [v for v in levels if v.name == name] for name in dict.fromkeys(v.name for v in levels)},
        changes=[v for v in verdicts if v.name.startswith(CHANGE)],
        limits=list(dict.fromkeys(limit for v in verdicts for limit in v.limits)),
        methods={v.name: v.method for v in levels if is_said(v)},
        environment=parsed(run_dir / "environment.json", Environment.model_validate),
        ledger=parsed(run_dir / "ledger.json", Ledger.model_validate),
    )
    path = run_dir / "report.html"
    write_atomic(path, page)
    return path


def headline(verdicts: Sequence[Verdict]) -> str:
    """How far the last generation is from the original, with and without real data, and how much is shown."""
    kl = sorted((v for v in verdicts if v.name == "kl to teacher"), key=lambda v: int(v.detail["generation"]))
    if not kl:
        return "Nothing was measured."
    last = int(kl[-1].detail["generation"])
    at = {(v.detail["generation"], v.detail["branch"]): v for v in kl}
    changes = [v for v in verdicts if v.name.startswith(CHANGE)]
    moved = sum(bool(v.rejected) for v in changes)
    alike = sum(bool(v.detail["alike"]) for v in changes)
    unsaid = sum(not is_said(v) for v in changes)
    return (
        f"Generation {last} is {value_text(at[last, 'copies'])} from the original, generation 1 was "
        f"{figure_text(at[1, 'copies'])}; with the original's data mixed in it is {figure_text(at[last, 'mixed'])}. "
        f"Of {len(changes)} changes, {moved} are shown and {alike} are shown to lie within their margins."
        + (f" Of {unsaid} nothing can be said: too many answers are missing." if unsaid else "")
    )


def curves(levels: Sequence[Verdict]) -> list[Figure]:
    """One chart for each quantity that was measured: the copies and the mixed branch from the original on."""
    found = []
    for name, caption in CURVES.items():
        given = [v for v in levels if v.name == name and is_said(v)]
        if given:
            found.append(Figure(titled(name), f"{caption} 95 % intervals, n = {given[0].n}.", _curve(name, given)))
    return found


def heat_rows(levels: Sequence[Verdict]) -> list[HeatRow]:
    """Models by outcomes of the safety tasks; empty where none was measured."""
    held = {(v.subject, v.name): v for v in levels if v.name in HEAT}
    models = dict.fromkeys(subject for subject, _ in held)
    return [HeatRow(m, tuple(_heat(held.get((m, name))) for name in HEAT)) for m in models]


def _heat(verdict: Verdict | None) -> tuple[str, str, int] | None:
    if verdict is None or not is_said(verdict):
        return None
    return figure_text(verdict), interval_text(verdict), round(4 * verdict.value)


def _curve(name: str, given: Sequence[Verdict]) -> Markup:
    branches = [b for b in dict.fromkeys(str(v.detail["branch"]) for v in given) if b != ORIGINAL]
    own = {b: [v for v in given if v.detail["branch"] == b] for b in branches}
    root = [v for v in given if v.detail["branch"] == ORIGINAL]
    first = [v for v in given if v.detail["generation"] == 1]
    series = [
        Series(b, tuple(_point(v, ASIDE * i) for v in [*(first if i else root), *own[b]]), i)
        for i, b in enumerate(branches)
    ]
    unit = given[0].unit
    return line_chart(
        series,
        title=f"{name} over generations",
        desc="; ".join(f"{v.subject}: {figure_text(v)} ({interval_text(v)})" for v in given),
        x_label="generation; 0 is the original",
        y_label=unit.replace("share", "per cent", 1) if is_share(unit) else unit,
    )


def _point(verdict: Verdict, aside: float) -> Point:
    scale = scale_of(verdict.unit)
    low, high = (end * scale for end in verdict.interval) if verdict.interval else (None, None)
    return Point(int(verdict.detail["generation"]) + aside, verdict.value * scale, low, high)


def _shown(value: Any) -> Any:
    assert not isinstance(value, float), f"format {value} before it is shown"
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def is_said(verdict: Verdict) -> bool:
    """Whether something is claimed: not if too many answers are missing."""
    return verdict.detail.get("said") is not False


def alike_text(verdict: Verdict) -> str:
    """The equivalence test's adjusted p-value and margin, as the table shows them."""
    if not is_said(verdict):
        return "–"
    return f"{p_text(verdict.detail['alike_p_adjusted'])} (±{verdict.detail['margin']:g})"
