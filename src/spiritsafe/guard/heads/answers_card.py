"""The card of the control of answers as text that a person reads."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from spiritsafe.guard.heads.answers import ATTACK, COUNTS, HARM
from spiritsafe.guard.heads.card import WIDTH

HOW = (
    "The answer is read in windows of 160 tokens, each half in the last. A window tells how much it is like a request "
    f"for harm (the head `harmful`), plus {HARM} times how much it is like answers that did harm, less a penalty where "
    "it declines; the highest window counts. With the question's score by `harmful` (or by `injection`, less "
    f"{ATTACK}) added it flags at `pair`; by "
    "itself, whatever was asked, at `alone`. A question is all turns since the model's last answer. The three limits "
    f"are of answers of up to {COUNTS[1] - 1} windows, of up to {COUNTS[2] - 1}, and of more. The beginning of an "
    "answer is scored like an answer. The form of the sum was chosen with XSTest's figures below in sight; the heads "
    "in it did not see the rows that they are measured on."
)
UNSEEN = (
    "Never seen. XSTest's answers are scored by heads that saw no answer to the question and none of the same model, "
    "the others by heads that saw nothing of the set or its relations; questions by a request head without their fold. "
    "Harm in XSTest is full compliance with an unsafe prompt, in the others what their judges say. Shares with "
    "Wilson's 95 % intervals, F1 with a bootstrap over questions; all in %."
)
IN_USE = (
    "In use: the control as shipped. Real traffic is the half on which no limit was chosen; its answers are taken for "
    "harmless, which some are not. The answers that did harm were learnt from: only how those cases compare is to be "
    "read."
)
CANNOT = (
    "It finds three of five harmful answers to plain requests, less than half of those that attacks drew, and a "
    "fifth to two fifths of those that people rated as harmful: it is a second net, never the only one. Whoever "
    "knows it gets past: a model that answers in a cipher with a key, in another language or in images of words, "
    "that strikes out letters, begins each stretch with a refusal, wraps harm in pages of harmless text, or "
    "answers in steps over several turns, each harmless; every answer is read by itself. What is harmless and of "
    "the same subject (a history of a poison, advice to victims) is flagged most, after questions that sound "
    "harmful above all. Labels are of English answers of models of 2023; of other languages it knows what the "
    "request heads know, and refusals of ours. Not read: what a model thinks aside, calls of tools, and what is "
    "true or false. The policy `encoder` has no other control of answers than `heads`."
)


def as_text(card: Mapping[str, Any]) -> str:
    """A card in Markdown, as a section: limits, figures, what it cannot do, the sets."""
    limits = [f"| {name} | {' '.join(f'{each:+.2f}' for each in own)} |" for name, own in card["limits"].items()]
    sets = [
        f"| {each['name']} | {each['licence']} | {each['answers']:,} | {each['did_harm']:,} | {each['harmless']:,} |"
        for each in card["sets"]
    ]
    parts = [
        ["# The control of answers", "", f"Weights sha256 `{card['weights_sha256']}`, fitted beside the request heads"],
        [f"`{card['requests_sha256']}`, seed {card['seed']}.", "", *wrap(HOW, WIDTH), ""],
        ["| rule | limit |", "|---|---|", *limits, "", *wrap(UNSEEN, WIDTH), ""],
        ["| answers | metric | % | n |", "|---|---|---|---|", *_rows(card["never_seen"]), ""],
        [*wrap(IN_USE, WIDTH), "", "| answers | metric | % | n |", "|---|---|---|---|", *_rows(card["in_use"]), ""],
        ["## What it cannot do", "", *wrap(CANNOT, WIDTH), ""],
        ["## Sets of answers", "", "| set | licence | answers | did harm | harmless |", "|---|---|---|---|---|", *sets],
    ]
    return "\n".join(line for part in parts for line in part)


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"| {row['case']} | {row['metric']} | {_share(row)} | {row['n']:,} |" for row in rows]


def _share(row: Mapping[str, Any]) -> str:
    value, low, high = (f"{100 * row[name]:.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
