"""`report.html`: one self-contained page from a run directory. No scripts, no requests, no model.

Every text that reaches the page passes `_finalize`, which spells out hidden characters; Jinja then escapes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spiritsafe.errors import printable
from spiritsafe.record import Verdict, write_atomic
from spiritsafe.report.figures import figures
from spiritsafe.report.load import RunData, kind_of, load_run
from spiritsafe.report.published import R1
from spiritsafe.report.render import render
from spiritsafe.report.story import against, headline, tiles
from spiritsafe.report.text import number

ROOMS = ("make", "measure", "guard", "prove")
KINDS = {
    "E": "exact: rests on the owner's own random draws",
    "C": "calibrated: rests on a population known to be independent",
    "I": "indicative: shows likeness, no error rate",
    "S": "sampling: rests on which prompts were drawn",
}


@dataclass(frozen=True)
class VerdictGroup:
    """Verdicts that differ only in their subject: one method, one set of assumptions and limits."""

    name: str
    verdicts: tuple[Verdict, ...]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into the directory of a run, a making or a measurement, atomically.

    Raises `DataError` if the run is incomplete.
    """
    if not (run_dir / "recipe.json").exists() and (run_dir / "table.csv").exists():
        from spiritsafe.report.lab import write_lab

        return write_lab(run_dir)
    if kind_of(run_dir) == "make":
        from spiritsafe.report.making import write_making

        return write_making(run_dir)
    if kind_of(run_dir) == "matched":
        from spiritsafe.report.matched import write_matched

        return write_matched(run_dir)
    if kind_of(run_dir) == "photocopy":
        from spiritsafe.report.photocopy import write_photocopy

        return write_photocopy(run_dir)
    path = run_dir / "report.html"
    write_atomic(path, render_report(load_run(run_dir)))
    return path


def render_report(run: RunData) -> str:
    """The page of a run."""
    css = (resources.files("spiritsafe.report") / "templates" / "report.css").read_text(encoding="utf-8")
    return render(
        "report.html.jinja",
        _finalize,
        {"exact": _exact, "moment": _moment, "plain_details": _plain_details},
        run=run,
        css=Markup(css),
        headline=headline(run),
        tiles=tiles(run),
        against=against(run.verdicts),
        figures=figures(run),
        rooms={room: group_verdicts([v for v in run.verdicts if v.room == room]) for room in ROOMS},
        limits=list(dict.fromkeys(limit for v in run.verdicts for limit in v.limits)),
        r1=R1,
        kinds=KINDS,
    )


def group_verdicts(verdicts: Sequence[Verdict]) -> list[VerdictGroup]:
    """Verdicts of one name, unit, method, kind, assumptions and limits together, in order of first appearance."""
    groups: dict[tuple[object, ...], list[Verdict]] = {}
    for v in verdicts:
        groups.setdefault((v.name, v.unit, v.method, v.kind, v.assumptions, v.limits), []).append(v)
    return [VerdictGroup(found[0].name, tuple(found)) for found in groups.values()]


def _finalize(value: Any) -> Any:
    """Spell out what is hidden in a text; a bare float is our mistake, since it has no stated precision."""
    assert not isinstance(value, float), f"format {value} before it is shown"
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _exact(value: float) -> str:
    return repr(value)


def _moment(iso: str) -> str:
    return iso.replace("T", " ").replace("Z", " UTC")


def _plain_details(detail: dict[str, Any]) -> dict[str, str]:
    """The scalars of a verdict's detail, as text; account and model are in its subject."""
    told = ("account", "model")
    scalars = {k: v for k, v in detail.items() if isinstance(v, str | int | float) and k not in told}
    return {k: number(v) if isinstance(v, float) else str(v) for k, v in scalars.items()}
