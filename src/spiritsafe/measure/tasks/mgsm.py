"""MGSM (arXiv 2210.03057): 250 GSM8K questions in each language, zero-shot, the answer's last number."""

from functools import partial

from spiritsafe.measure.data import rows
from spiritsafe.measure.task import Item, Task
from spiritsafe.measure.tasks.numbers import same_number
from spiritsafe.models.base import user
from spiritsafe.record import Sampling


def load(language: str, where: str) -> list[Item]:
    """The questions of one language."""
    file = f"mgsm_{language}.tsv"
    found = rows(where, f"mgsm/{file}")
    return [Item(user(r["input"]), r["target"].strip(), category=language) for r in found]


def task(name: str) -> Task:
    """`mgsm-LANGUAGE`, greedy. A point or a comma may group digits: `1.000` and `1,000` are both 1000."""
    load_language = partial(load, name.removeprefix("mgsm-"))
    return Task(name, "accuracy", load_language, same_number, Sampling(temperature=0.0, max_tokens=400))
