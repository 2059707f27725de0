"""The report of a comparison at equal budget: tables, curves and costs from the run's directory, never a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spiritsafe.errors import printable
from spiritsafe.recipe import parse_any
from spiritsafe.record import Verdict, read_json, write_atomic
from spiritsafe.report.figures import Figure, cut_figure
from spiritsafe.report.load import CutTrial, Environment, Ledger, View, parsed, read_verdicts
from spiritsafe.report.render import render
from spiritsafe.report.svg import Point, Series, line_chart
from spiritsafe.report.text import number

TONES = {"text": 0, "cached": 1, "online": 2, "on-policy": 3}
ASIDE = 0.012  # of the axis, so that the bars of methods can be told apart
HEADINGS = {
    "tokens": "The same number of answer tokens",
    "seconds": "The same seconds of training",
    "all-seconds": "The same seconds, the teacher's counted",
}
READ = {
    "tokens": "Every student learned from the same number of answer tokens, whatever that took.",
    "seconds": "Every training had the same time by its own clock; what the teacher did before is told beside.",
    "all-seconds": "The time in which the teacher wrote its answers, and kept its signals where they are used, is "
    "part of the budget.",
}


class CurvePoint(View):
    """Held-out KL of a method when a share of its budget was spent; `seeds` are the single trainings' values."""

    budget: str
    method: str
    label: str
    share: float
    tokens: float
    loop_s: float
    before_s: float
    kl: float
    low: float
    high: float
    seeds: tuple[float, ...]


class Part(View):
    """What a part of the whole run cost."""

    part: str
    wall_s: float
    cpu_s: float
    usd: float


class Each(View):
    """What one training of a method costs by itself, a mean over its seeds; seconds, tokens, US dollars."""

    budget: str
    method: str
    label: str
    num_seeds: int
    steps: float
    answer_tokens: float
    answers_s: float
    signals_s: float
    scoring_s: float
    writing_s: float
    learning_s: float
    total_s: float
    usd: float
    teacher_wrote: float
    teacher_read: float
    student_wrote: float


class Costs(View):
    """`parts` add up to the ledger."""

    parts: tuple[Part, ...]
    each: tuple[Each, ...]


@dataclass(frozen=True)
class Line:
    """A method in a budget's table; a verdict is None where nothing was measured."""

    label: str
    cost: Each
    seeds: str
    kl: Verdict
    agreement: Verdict
    solved: Verdict | None


@dataclass(frozen=True)
class Budget:
    """One budget: how it reads, its lines, and its pairs."""

    name: str
    heading: str
    read: str
    lines: tuple[Line, ...]
    pairs: tuple[Verdict, ...]


def write_matched(run_dir: Path) -> Path:
    """Write `report.html` of a comparison, atomically. Raises `DataError` where the run is incomplete."""
    head = read_json(run_dir / "recipe.json")
    verdicts = read_verdicts(run_dir)
    plots = read_json(run_dir / "plots.json")
    curves = [CurvePoint.model_validate(p) for p in plots["curves"]]
    cuts = [CutTrial.model_validate(t) for t in plots["cut"]]
    costs = parsed(run_dir / "costs.json", Costs.model_validate)
    css = (resources.files("spiritsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    budgets = _budgets(verdicts, curves, costs)
    page = render(
        "matched.html.jinja",
        _finalize,
        {"moment": _moment},
        css=Markup(css),
        recipe=parse_any(head["recipe"]),
        digest=str(head["digest"]),
        environment=parsed(run_dir / "environment.json", Environment.model_validate),
        headline=headline(budgets),
        budgets=budgets,
        fixed=_fixed(verdicts),
        figures=[f for f in (*_figures(curves), cut_figure(cuts)) if f.chart],
        costs=costs,
        ledger=parsed(run_dir / "ledger.json", Ledger.model_validate),
        limits=list(dict.fromkeys(limit for v in verdicts for limit in v.limits)),
        tasks=[v for v in verdicts if v.name == "task accuracy difference"],
    )
    path = run_dir / "report.html"
    write_atomic(path, page)
    return path


def headline(budgets: Sequence[Budget]) -> list[str]:
    """For each budget, which methods ended closer to the teacher than the first one, in a sentence."""
    return [_sentence(b) for b in budgets]


def _sentence(budget: Budget) -> str:
    first = budget.lines[0].label
    against = [(v.subject.partition(" vs ")[0], v) for v in budget.pairs if f" vs {first} at " in v.subject]
    told = []
    for words, wanted in (("closer to the teacher", True), ("farther from it", False)):
        found = [name for name, v in against if v.rejected and (v.value < 0) == wanted]
        told += [f"{_list(found)} ended {words} than {first}"] if found else []
    if unclear := [name for name, v in against if not v.rejected]:
        told.append(f"no difference from {first} could be shown for {_list(unclear)}")
    return f"{budget.heading}: {'; '.join(told)}."


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _budgets(verdicts: Sequence[Verdict], curves: Sequence[CurvePoint], costs: Costs) -> list[Budget]:
    found = []
    for name in dict.fromkeys(each.budget for each in costs.each):
        lines = [_line(each, verdicts, curves) for each in costs.each if each.budget == name]
        pairs = tuple(v for v in verdicts if v.name == "kl difference" and v.detail["budget"] == name)
        found.append(Budget(name, HEADINGS[name], READ[name], tuple(lines), pairs))
    return found


def _line(each: Each, verdicts: Sequence[Verdict], curves: Sequence[CurvePoint]) -> Line:
    mine = {
        v.name: v for v in verdicts if (v.detail.get("budget"), v.detail.get("method")) == (each.budget, each.method)
    }
    last = next(p for p in curves if (p.budget, p.method, p.share) == (each.budget, each.method, 1.0))
    seeds = ", ".join(number(value, 3) for value in last.seeds)
    return Line(each.label, each, seeds, mine["kl to teacher"], mine["top-1 agreement"], mine.get("task accuracy"))


def _fixed(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Verdicts of what no training changes, by subject and name."""
    found: dict[str, dict[str, Verdict]] = {}
    for v in verdicts:
        if "budget" not in v.detail:
            found.setdefault(v.subject, {})[v.name] = v
    return found


def _figures(curves: Sequence[CurvePoint]) -> list[Figure]:
    """One chart a budget, one line a method."""
    along: dict[str, tuple[str, Callable[[CurvePoint], float]]] = {
        "tokens": ("answer tokens learned from", lambda p: p.tokens),
        "seconds": ("seconds of training", lambda p: p.loop_s),
        "all-seconds": ("seconds, the teacher's counted", lambda p: p.before_s + p.loop_s),
    }
    found = []
    for budget in dict.fromkeys(p.budget for p in curves):
        label, x_of = along[budget]
        mine = [p for p in curves if p.budget == budget]
        apart = ASIDE * max(x_of(p) for p in mine)
        series = [
            Series(name, tuple(_beside(p, x_of(p) + number * apart) for p in mine if p.label == name), TONES[method])
            for number, (name, method) in enumerate(dict.fromkeys((p.label, p.method) for p in mine))
        ]
        chart = line_chart(
            series,
            title=f"Held-out KL to the teacher over {label}",
            desc="; ".join(f"{s.name} ends at {number(s.points[-1].y)} nats per token" for s in series),
            x_label=label,
            y_label="held-out KL to the teacher, nats per token",
        )
        caption = (
            f"{READ[budget]} Lower is closer. Bars: 95 % intervals over held-out prompts, which all methods share, so "
            "bars that overlap may still be apart when paired (see the table of pairs). Methods are drawn a little "
            "aside of one another."
        )
        found.append(Figure(HEADINGS[budget], caption, chart))
    return found


def _beside(point: CurvePoint, x: float) -> Point:
    return Point(x, point.kl, point.low, point.high)


def _moment(iso: str) -> str:
    return iso.replace("T", " ").replace("Z", " UTC")


def _finalize(value: Any) -> Any:
    """Spell out what is hidden in a text; a bare float has no stated precision and is our mistake."""
    assert not isinstance(value, float), f"format {value} before it is shown"
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
