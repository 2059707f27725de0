"""BIG-Bench Hard (arXiv 2210.09261), six of its tasks, zero-shot with a line that says how to end the answer."""

import re
from functools import partial

from spiritsafe.measure.data import rows
from spiritsafe.measure.task import Item, Task
from spiritsafe.measure.tasks.letters import stated_letter
from spiritsafe.measure.tasks.numbers import same_number, values
from spiritsafe.measure.tasks.stated import MARKUP, marked, proper
from spiritsafe.models.base import user
from spiritsafe.record import Sampling

ENDING = 'End with "the answer is" and the answer.'
OPTION = re.compile(r"\([A-Z]\)")
LETTERS = "ABCDEFGHIJKLMNOPQR"
WORDS = (("yes", "no"), ("true", "false"), ("valid", "invalid"), ("plausible", "implausible"))


def load(name: str, where: str) -> list[Item]:
    """The 250 questions of one task."""
    file = f"{name}.json"
    found = rows(where, f"bbh/{file}")
    return [Item(user(f"{r['input']}\n{ENDING}"), r["target"].strip(), category=name) for r in found]


def matches(item: Item, answer: str) -> bool:
    """Whether the answer states the target: a letter in brackets, a word such as Yes or False, a number, a text."""
    target = item.target.strip()
    said = _said(answer)
    if OPTION.fullmatch(target):
        return stated_letter(said, LETTERS) == target.strip("()")
    for words in WORDS:
        if target.lower() in words:
            return _first_of(said, words) == target.lower()
    if values(target) and re.fullmatch(r"-?[\d.,]+", target):
        return same_number(item, said)
    return _plain(said) == _plain(target)


def task(name: str) -> Task:
    """`bbh-TASK`, greedy."""
    load_task = partial(load, name.removeprefix("bbh-"))
    return Task(name, "accuracy", load_task, matches, Sampling(temperature=0.0, max_tokens=400))


def _said(answer: str) -> str:
    """The part that is marked as the answer, else the last line."""
    text = proper(answer)
    lines = [line for line in text.splitlines() if line.strip()]
    return marked(text) or (lines[-1] if lines else "")


def _first_of(text: str, words: tuple[str, ...]) -> str:
    """The first of some words in a text; "" if it is denied or none is there."""
    pattern = rf"(?P<not>\bnot\s+)?\b(?P<word>{'|'.join(words)})\b"
    found = re.search(pattern, MARKUP.sub("", text), re.IGNORECASE)
    return found["word"].lower() if found and not found["not"] else ""


def _plain(text: str) -> str:
    return text.strip().strip(".*\"'` ").lower()
