"""The card of heads as text that a person reads."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from spiritsafe.guard.heads.pieces import COUNTS

WIDTH = 120
STAGES = {"linear": "First stage: linear heads", "encoder": "Second stage: encoder heads"}
FLAGS = (
    "A text is read whole, in windows, and in pieces (sentences, lines), and the highest score counts. A first-stage "
    "score of at least `limit` flags; where `harmful` flags, so does one of at least `beside`. A second-stage score of "
    "at least `english`, `german` or `other` flags, by the text's tongue. The three limits are of texts of up to "
    f"{COUNTS[1] - 1} pieces, of up to {COUNTS[2] - 1}, and of more. The second stage is asked of English parts only "
    "where a first-stage score is at least `clear`, and of all others."
)
IN_USE = (
    "What the heads as shipped flag, run as the policies run them. Real traffic are conversations of people with an "
    "assistant (sharegpt): nothing is learnt from them; the limits were chosen on one half, these figures are of the "
    "other. What people asked is taken for harmless, which some is not. Requests are of sets never learnt from."
)
FIGURES = (
    "Held out: rows no fit saw, of sets whose other rows were learnt from, or of sets that are measured only. Never "
    "seen: rows scored by heads that learnt from no row of the set, nor of its relations, at the shipped limits: what "
    "to expect of data not named here. Shares in %, with 95 % intervals (shares: Wilson; F1: bootstrap over rows)."
)
CANNOT = (
    "Real traffic is of one source, of 2023, nearly all English; for French, Italian and Spanish there are a few sets "
    "of simple questions. Sets of requests are what researchers wrote, not what attackers send. Answers have a control "
    "of their own. Never seen is one step: sets share authors, topics and style even across folds, limits were chosen "
    "with these figures in sight, and who knows the heads can word a request around them."
)


def as_text(card: Mapping[str, Any]) -> str:
    """A card in Markdown: heads and limits, use, figures with intervals, what they cannot show, the sets."""
    columns = list(dict.fromkeys(column for head in card["heads"].values() for column in head))
    heads = [
        f"| {name} | {' | '.join(_limits(head[c]) if c in head else '' for c in columns)} |"
        for name, head in card["heads"].items()
    ]
    parts = [
        [f"# {card['name']}", "", f"Weights sha256 `{card['weights_sha256']}`, seed {card['seed']}.", ""],
        [*wrap(FLAGS, WIDTH), ""],
        [f"| head | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}", *heads, ""],
        *([_use(card["in_use"])] if any(card.get("in_use", {}).values()) else []),
        [*wrap(FIGURES, WIDTH), ""],
        *(_stage(name, stage) for name, stage in card["stages"].items()),
        ["## What this cannot show", "", *wrap(CANNOT, WIDTH), ""],
        ["## Sets", "", "| set | licence | rows | learnt from | held out |", "|---|---|---|---|---|", *_sets(card)],
    ]
    return "\n".join(line for part in parts for line in part)


def _limits(limits: Sequence[float]) -> str:
    return " ".join(f"{limit:+.2f}" for limit in limits)


def _use(stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    by_case: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, rows in stages.items():
        for row in rows:
            by_case.setdefault(row["case"], {})[stage] = row
    names = list(stages)
    lines = [f"| {case} | {' | '.join(_with_n(own.get(name)) for name in names)} |" for case, own in by_case.items()]
    head = f"| flagged, % | {' | '.join(f'{name} | n' for name in names)} |"
    return ["## In use", "", *wrap(IN_USE, WIDTH), "", head, f"|---|{'---|---|' * len(names)}", *lines, ""]


def _stage(name: str, stage: Mapping[str, Any]) -> list[str]:
    head = "| case | target | metric | held out | n | never seen | n |"
    return [f"## {STAGES[name]}", "", head, f"|{'---|' * 7}", *_figures(stage), ""]


def _figures(stage: Mapping[str, Any]) -> list[str]:
    kinds = [{(f["case"], f["target"], f["metric"]): f for f in stage[kind]} for kind in ("held_out", "never_seen")]
    lines = []
    for key in dict.fromkeys(key for kind in kinds for key in kind):
        lines.append(f"| {' | '.join((*key, *(_with_n(kind.get(key)) for kind in kinds)))} |")
    return lines


def _with_n(found: Mapping[str, Any] | None) -> str:
    return f"{_share(found)} | {found['n']:,}" if found else " | "


def _share(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})".replace("%", "")


def _sets(card: Mapping[str, Any]) -> list[str]:
    return [
        f"| {each['name']} | {each['licence']} | {each['rows']:,} | {each['learnt']:,} | {each['held_out']:,} |"
        for each in card["sets"]
    ]
