"""The verdicts for a terminal (a table of at least 100 columns) and for a program (JSON)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from spiritsafe.errors import printable
from spiritsafe.record import Verdict, verdict_file
from spiritsafe.report.text import figure_text, interval_text, plain_p_text

MOST_COLUMNS = 1000
ROOMS = ("make", "measure", "guard", "prove")
# What a test that rejects says, and one that does not: the watch speaks of accounts, as its documents do.
SAYS = {"extraction watch": ("alarm", "no alarm")}
MARKS = {True: ("✓", "green"), False: ("✗", "bold red reverse")}


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """All verdicts, grouped by room and name, with a mark where the run's ground truth is known."""
    marked = any(verdict.holds is not None for verdict in verdicts)
    marks = "✓ agrees with what is known of the run, ✗ does not; " if marked else ""
    caption = f"{marks}adjusted: for several tests"
    table = Table(box=SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False, collapse_padding=True)
    table.add_column("verdict", overflow="fold")
    for header in ("value", "95 % interval", "n", "p", "adjusted"):
        table.add_column(header, justify="right", overflow="fold")
    table.add_column("says", overflow="fold", no_wrap=True)
    for room in ROOMS:
        _add_room(table, room, [v for v in verdicts if v.room == room])
    return table


def natural_width(table: Table) -> int:
    """Columns of a table in which nothing wraps."""
    console = Console(width=MOST_COLUMNS)
    return Measurement.get(console, console.options, table).maximum


def verdicts_json(verdicts: Sequence[Verdict], *, computed: Sequence[Mapping[str, Any]] = ()) -> str:
    """The verdicts as `verdicts.json` holds them; see `verdict_file`."""
    return json.dumps(verdict_file(verdicts, computed=computed), indent=1, ensure_ascii=False) + "\n"


def _add_room(table: Table, room: str, verdicts: Sequence[Verdict]) -> None:
    for name, unit in dict.fromkeys((v.name, v.unit) for v in verdicts):
        named = f"{room}: {printable(name)}" + (f" [{printable(unit)}]" if unit not in ("", "share") else "")
        table.add_row(Text(named, style="bold"))
        for verdict in (v for v in verdicts if (v.name, v.unit) == (name, unit)):
            table.add_row(*_cells(verdict))
    table.add_section()


def _cells(verdict: Verdict) -> list[Text]:
    said = verdict.detail.get("said") is not False
    numbers = [
        figure_text(verdict) if said else "–",
        interval_text(verdict) if said else "–",
        f"{verdict.n:,}",
        _p(verdict.p_value),
        _p(verdict.p_adjusted),
    ]
    return [Text(f"  {printable(verdict.subject)}"), *map(Text, numbers), _outcome(verdict)]


def _p(value: float | None) -> str:
    return "–" if value is None else plain_p_text(value)


def _outcome(verdict: Verdict) -> Text:
    if_so, if_not = SAYS.get(verdict.name, ("rejects", "keeps"))
    says = {True: f"{if_so} ", False: f"{if_not} ", None: ""}[verdict.rejected]
    sign, style = ("", "") if verdict.holds is None else MARKS[verdict.holds]
    return Text(says) + Text(sign, style=style)
