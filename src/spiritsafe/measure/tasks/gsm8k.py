"""GSM8K (arXiv 2110.14168): grade-school arithmetic, zero-shot, the answer's last number against the key's."""

from spiritsafe.measure.data import rows
from spiritsafe.measure.task import Item, Task
from spiritsafe.measure.tasks.numbers import same_number
from spiritsafe.models.base import user
from spiritsafe.record import Sampling


def load(where: str) -> list[Item]:
    """The 1,319 test questions."""
    found = rows(where, "gsm8k/test.jsonl")
    return [Item(user(r["question"]), r["answer"].rpartition("####")[2].strip()) for r in found]


def task(name: str) -> Task:
    """The task, greedy."""
    return Task(name, "accuracy", load, same_number, Sampling(temperature=0.0, max_tokens=400))
