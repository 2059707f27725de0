"""What is told of single prompts: category, hash, a short excerpt whose words are masked, and each model's outcome.

No prompt and no answer leaves a measurement in full, but for its own store of exchanges.
"""

import re
from collections.abc import Sequence
from typing import Any

from spiritsafe.measure.harness import Cell

LENGTH = 60


def redacted(text: str) -> str:
    """The first 60 characters on one line; words of more than three letters keep the first alone."""
    flat = re.sub(r"\s+", " ", text).strip()
    shown = re.sub(r"[^\W\d_]{4,}", lambda word: word.group()[0] + "·" * (len(word.group()) - 1), flat[:LENGTH])
    return shown + ("…" if len(flat) > LENGTH else "")


def cases(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One record for each prompt of a safety task, with the outcome by model and setting."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in (c for c in cells if c.metric in ("unsafe", "rejected", "over_refusal", "filtered")):
        for key, category, excerpt, outcome in zip(
            cell.keys, cell.categories, cell.excerpts, cell.outcomes, strict=True
        ):
            named = {"task": cell.task, "category": category, "item": key, "excerpt": redacted(excerpt)}
            told = found.setdefault((cell.task, key), {**named, "outcomes": {}})["outcomes"]
            told.setdefault(cell.label, "safe")
            if outcome:
                told[cell.label] = cell.metric if cell.metric in ("unsafe", "filtered") else "rejected"
    return list(found.values())
