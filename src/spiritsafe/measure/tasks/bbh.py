"""BIG-Bench Hard (arXiv 2210.09261), six of its tasks, zero-shot with a line that says how to end the answer."""

import re
from functools import partial

from spiritsafe.measure.data import rows
from spiritsafe.measure.task import Item, Task
from spiritsafe.models.base import user
from spiritsafe.record import Sampling

ENDING = 'End with "the answer is" and the answer.'
MARK = re.compile(r"the answer is:?\s*(.+)", re.IGNORECASE)


def load(name: str, where: str) -> list[Item]:
    """The 250 questions of one task."""
    file = f"{name}.json"
    found = rows(where, f"bbh/{file}")
    return [Item(user(f"{r['input']}\n{ENDING}"), r["target"].strip(), category=name) for r in found]


def matches(item: Item, answer: str) -> bool:
    """Whether what follows the last "the answer is" (else the last line) is the target, but for case and full stop."""
    marked = MARK.findall(answer)
    said = marked[-1] if marked else (answer.strip().splitlines() or [""])[-1]
    return _plain(said) == _plain(item.target)


def task(name: str) -> Task:
    """`bbh-TASK`, greedy."""
    load_task = partial(load, name.removeprefix("bbh-"))
    return Task(name, "accuracy", load_task, matches, Sampling(temperature=0.0, max_tokens=400))


def _plain(text: str) -> str:
    return text.strip().strip(".*\"'` ").lower()
