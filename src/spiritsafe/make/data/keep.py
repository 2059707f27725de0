"""Rejection sampling: of the answers to each prompt the correct ones, by rule; every answer gets one reason.

Pass rates count every answer that was checked, also those that a rule of form leaves out later.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from spiritsafe.checks.values import without_thought
from spiritsafe.checks.verify import Outcome
from spiritsafe.checks.words import tokens
from spiritsafe.evidence import wilson
from spiritsafe.make.data.settings import KeepPart
from spiritsafe.prompts import jaccard
from spiritsafe.record import Exchange, Record

Reason = Literal[
    "kept",
    "wrong",
    "error",
    "stopped",
    "failed",
    "empty",
    "unfinished",
    "too long",
    "pattern",
    "script",
    "too hard",
    "too easy",
    "surplus",
]
UNICODE_NAMES = {"han": ("CJK",), "kana": ("HIRAGANA", "KATAKANA")}


class PassRate(Record):
    """How many of a prompt's checked answers are correct, with Wilson's 95 % interval."""

    prompt: str
    correct: int
    n: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Candidate:
    """An answer, the digest of its prompt, and what its check said; None where the prompt has no check."""

    exchange: Exchange
    prompt: str
    outcome: Outcome | None


def pass_rates(candidates: Sequence[Candidate]) -> dict[str, PassRate]:
    """The pass rate of every prompt with a check, by digest."""
    found = {}
    for prompt, group in _by_prompt(candidates).items():
        checked = [c.outcome == "correct" for c in group if c.outcome is not None]
        if checked:
            share = wilson(sum(checked), len(checked))
            found[prompt] = PassRate(
                prompt=prompt, correct=sum(checked), n=share.n, rate=share.value, low=share.low, high=share.high
            )
    return found


def reasons(candidates: Sequence[Candidate], settings: KeepPart) -> dict[str, Reason]:
    """By exchange id, why each answer is kept or not; the first reason that applies."""
    rates, found = pass_rates(candidates), {}
    for prompt, group in _by_prompt(candidates).items():
        rate = rates.get(prompt)
        fit = []
        for candidate in group:
            reason = _reason(candidate, rate, settings)
            found[candidate.exchange.id] = reason
            if reason == "kept":
                fit.append(candidate.exchange)
        chosen = {e.id for e in _chosen(fit, settings)}
        found |= {e.id: "surplus" for e in fit if e.id not in chosen}
    return found


def _reason(candidate: Candidate, rate: PassRate | None, settings: KeepPart) -> Reason:
    exchange, (least, most) = candidate.exchange, settings.pass_rate
    if exchange.error_kind or exchange.finish_reason == "error":
        return "failed"
    if not without_thought(exchange.answer).strip():
        return "empty"
    if candidate.outcome is not None and candidate.outcome != "correct":
        return candidate.outcome
    if rate and rate.rate < least:
        return "too hard"
    if rate and rate.rate > most:
        return "too easy"
    if settings.finished and exchange.finish_reason != "stop":
        return "unfinished"
    if settings.max_chars is not None and len(exchange.answer) > settings.max_chars:
        return "too long"
    if not re.search(settings.pattern, exchange.answer, re.DOTALL):
        return "pattern"
    if settings.script and script_share(exchange.answer, settings.script) < settings.script_share:
        return "script"
    return "kept"


def script_share(text: str, script: str) -> float:
    """The share of a text's letters that are of a script, by their Unicode names; 1 where it has no letters."""
    names = UNICODE_NAMES.get(script, (script.upper(),))
    letters = [c for c in text if c.isalpha()]
    ours = sum(unicodedata.name(c, "").startswith(names) for c in letters)
    return ours / len(letters) if letters else 1.0


def _chosen(fit: Sequence[Exchange], settings: KeepPart) -> Sequence[Exchange]:
    """At most `per_prompt`: the shortest; or the shortest, then each time the one least like those chosen."""
    if settings.per_prompt is None or len(fit) <= settings.per_prompt:
        return fit
    short = sorted(fit, key=lambda e: (len(e.answer), e.id))
    if settings.prefer == "short":
        return short[: settings.per_prompt]
    sets = {e.id: _trigrams(e.answer) for e in short}
    chosen = [short.pop(0)]
    while len(chosen) < settings.per_prompt:
        chosen.append(min(short, key=lambda e: max(jaccard(sets[e.id], sets[c.id]) for c in chosen)))
        short.remove(chosen[-1])
    return chosen


def _trigrams(text: str) -> set[tuple[str, ...]]:
    words = tokens(text, symbols=True)
    return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def _by_prompt(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    ordered = sorted(candidates, key=lambda c: c.prompt)
    return {prompt: list(group) for prompt, group in groupby(ordered, key=lambda c: c.prompt)}
