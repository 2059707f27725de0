"""The card of heads as text that a person reads."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

WIDTH = 120
FLAGS = (
    "A first-stage score of at least `limit` flags; where `harmful` flags, so does one of at least `beside`. "
    "A second-stage score of at least `english`, `german` or `other` flags, by the text's tongue. The second stage is "
    "asked of English texts only where a first-stage score is at least `clear`, and of all other texts."
)
FIGURES = (
    "Held-out half: other rows of the set were learnt from. Zero-shot: heads and limits knew no row of the set. "
    "Shares in %, with 95 % intervals (shares: Wilson; F1: bootstrap over rows)."
)


def as_text(card: Mapping[str, Any]) -> str:
    """A card in Markdown: heads and limits, figures with intervals, false alarms by language, the sets."""
    columns = list(dict.fromkeys(column for head in card["heads"].values() for column in head))
    heads = [
        f"| {name} | {' | '.join(f'{head[c]:+.2f}' if c in head else '' for c in columns)} |"
        for name, head in card["heads"].items()
    ]
    parts = [
        [f"# {card['name']}", "", f"Weights sha256 `{card['weights_sha256']}`, seed {card['seed']}.", ""],
        [*wrap(FLAGS, WIDTH), ""],
        [f"| head | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}", *heads, ""],
        [*wrap(FIGURES, WIDTH), ""],
        *(_stage(name, stage) for name, stage in card["stages"].items()),
        ["## Sets", "", "| set | licence | rows | learnt from | held out |", "|---|---|---|---|---|", *_sets(card)],
    ]
    return "\n".join(line for part in parts for line in part)


def _stage(name: str, stage: Mapping[str, Any]) -> list[str]:
    title = {"linear": "First stage: linear heads", "encoder": "Second stage: encoder heads"}[name]
    head = "| case | target | metric | held-out half | zero-shot | n |"
    return [f"## {title}, on rows never seen", "", head, "|---|---|---|---|---|---|", *_figures(stage), ""]


def _figures(stage: Mapping[str, Any]) -> list[str]:
    zero = {(f["case"], f["target"], f["metric"]): f for f in stage["zero_shot"]}
    lines = []
    for found in stage["held_out"]:
        key = (found["case"], found["target"], found["metric"])
        shown = _share(found)
        without = _share(zero[key]) if key in zero else "" if found["seen"] else shown
        lines.append(f"| {' | '.join(key)} | {shown if found['seen'] else ''} | {without} | {found['n']:,} |")
    return lines


def _share(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})".replace("%", "")


def _sets(card: Mapping[str, Any]) -> list[str]:
    return [
        f"| {each['name']} | {each['licence']} | {each['rows']:,} | {each['learnt']:,} | {each['held_out']:,} |"
        for each in card["sets"]
    ]
