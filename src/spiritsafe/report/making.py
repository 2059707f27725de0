"""The page of a making: the student against its start, the loss, what was learned from, and what it cost.

Reads only the run directory, never a model.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import Field

from spiritsafe.errors import printable
from spiritsafe.recipe import parse_any
from spiritsafe.record import Verdict, read_json, read_jsonl, write_atomic
from spiritsafe.report.figures import Figure, loss_figure
from spiritsafe.report.load import Environment, Ledger, Step, View, parsed, read_verdicts
from spiritsafe.report.render import render
from spiritsafe.report.text import value_text

CHANGE = "student vs start"
NO_VERDICT = "Student and start were not compared: there were fewer than two held-out prompts with an answer."


class Loss(View):
    """One training step of the student as `metrics.jsonl` has it."""

    step: int
    loss: float
    tokens: int = 0
    lr: float = 0.0
    grad_norm: float = 0.0
    elapsed_s: float = 0.0


class StageNotes(View):
    """What a stage noted of itself, as far as the page shows it."""

    notes: dict[str, Any] = Field(default_factory=dict)


def write_making(run_dir: Path) -> Path:
    """Write `report.html` into a making's directory, atomically. Raises `DataError` if it is not whole."""
    recipe: Any = parse_any(read_json(run_dir / "recipe.json")["recipe"])
    verdicts = read_verdicts(run_dir)
    css = (resources.files("spiritsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    page = render(
        "making.html.jinja",
        _shown,
        {},
        css=Markup(css),
        recipe=recipe,
        headline=headline(verdicts),
        verdicts=verdicts,
        no_verdict=NO_VERDICT,
        loss=_loss(run_dir),
        facts=_facts(run_dir),
        limits=list(dict.fromkeys(limit for v in verdicts for limit in v.limits)),
        environment=parsed(run_dir / "environment.json", Environment.model_validate),
        ledger=parsed(run_dir / "ledger.json", Ledger.model_validate),
    )
    path = run_dir / "report.html"
    write_atomic(path, page)
    return path


def headline(verdicts: tuple[Verdict, ...]) -> str:
    """Whether the student is shown to differ from its start, in a sentence."""
    change = next((v for v in verdicts if v.subject == CHANGE), None)
    if change is None:
        return NO_VERDICT
    low, high = change.interval or (change.value, change.value)
    shown = "is shown to have moved from" if low > 0 or high < 0 else "is not shown to differ from"
    return f"The student {shown} its start: {change.name} {value_text(change)}, n = {change.n}."


def _loss(run_dir: Path) -> Figure:
    path = run_dir / "metrics.jsonl"
    steps = read_jsonl(path, Loss)
    return loss_figure([Step(student="student", **step.model_dump()) for step in steps])


def _facts(run_dir: Path) -> dict[str, str]:
    """What the stages noted: the start, the method, how many answers were kept and why others were not."""
    notes = {name: _notes(run_dir, name) for name in ("teacher", "prompts", "data", "start", "student")}
    facts = {
        "Teacher": f"{notes['teacher'].get('address', '')}, digest {str(notes['teacher'].get('digest', ''))[:16]}",
        "Start": str(notes["start"].get("text", "")),
        "Method": str(notes["student"].get("method", "")),
        "Steps, answer tokens": f"{notes['student'].get('steps', '–')}, {notes['student'].get('answer_tokens', '–')}",
    }
    if notes["data"]:
        facts["Answers kept"] = str(notes["data"].get("kept", "–"))
        outcomes = notes["data"].get("answers") or {}
        left_out = [f"{reason} {num}" for reason, num in outcomes.items() if reason != "kept"]
        facts["Answers left out"] = ", ".join(left_out) or "none"
    return facts


def _notes(run_dir: Path, stage: str) -> dict[str, Any]:
    path = run_dir / "stages" / f"{stage}.json"
    return parsed(path, StageNotes.model_validate).notes if path.is_file() else {}


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
