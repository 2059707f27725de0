"""The card of heads as text that a person reads."""

from collections.abc import Mapping
from typing import Any


def as_text(card: Mapping[str, Any]) -> str:
    """A card in Markdown: heads and limits, figures with intervals, false alarms by language, the sets."""
    heads = [f"| {name} | {head['limit']:+.2f} |" for name, head in card["heads"].items()]
    parts = [
        [f"# {card['name']}", "", f"Weights sha256 `{card['weights_sha256']}`, seed {card['seed']}.", ""],
        ["| head | limit |", "|---|---|", *heads, "", "## On rows never seen", ""],
        ["Held-out half: other rows of the set were learnt from. Zero-shot: heads and limits knew no row of the set."],
        ["Shares in %, with 95 % intervals (shares: Wilson; F1: bootstrap over rows).", ""],
        ["| case | target | metric | held-out half | zero-shot | n |", "|---|---|---|---|---|---|", *_figures(card)],
        ["", "## Sets", "", "| set | licence | rows | learnt from | held out |", "|---|---|---|---|---|", *_sets(card)],
    ]
    return "\n".join(line for part in parts for line in part)


def _figures(card: Mapping[str, Any]) -> list[str]:
    zero = {(f["case"], f["target"], f["metric"]): f for f in card["zero_shot"]}
    lines = []
    for found in card["held_out"]:
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
