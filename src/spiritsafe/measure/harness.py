"""The laboratory's harness: models x tasks, asked once, scored from what is stored, in one table.

Nothing in the results depends on when or how often a measurement was interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.store import Budget, Meter, answers, locked
from spiritsafe.measure.task import Item, Task
from spiritsafe.models.base import Model, ask
from spiritsafe.progress import Show, warn
from spiritsafe.record import Exchange, seed_of


@dataclass(frozen=True)
class Cell:
    """One model on one task: an outcome for each item; `clusters` is empty where items are independent."""

    model: str
    task: str
    metric: str
    higher_is_better: bool
    outcomes: tuple[bool, ...]
    clusters: tuple[str, ...]
    categories: tuple[str, ...]
    tokens: int
    note: str = ""


def measure(
    models: Sequence[Model],
    tasks: Sequence[Task],
    folder: Path,
    *,
    data: str = "",
    limit: int | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    show: Show | None = None,
) -> list[Cell]:
    """Ask every model every task's prompts and score the answers; cells task by task, models in order.

    Answers are stored under `folder`; those already there are not generated again. Raises `UsageError`
    for two models with one address, `BudgetSpent` where the budget ends it, and what models and data raise.
    """
    if len({m.address for m in models}) < len(models):
        raise UsageError("models", "the same address is named twice", "name each once")
    meter, show = Meter(budget or Budget(), started_s=monotonic()), show or Show(quiet=True)
    cells = []
    with locked(folder) as mended:
        for text in mended:
            warn(text)
        for task in tasks:
            items = chosen(task, data, limit=limit, seed=seed)
            requests = ask([i.messages for i in items], task.sampling.model_copy(update={"seed": seed}))
            for model in models:
                with show.bar(f"{task.name}, {model.address}", len(requests)) as tick:
                    found = answers(folder, model, requests, meter=meter, tick=tick)
                cells.append(scored(model.address, task, items, found))
    return cells


def chosen(task: Task, data: str, *, limit: int | None, seed: int) -> list[Item]:
    """A task's items, equal ones once; `limit` of them picked by the seed, whatever order the file has."""
    items = list({item.key: item for item in task.load(data)}.values())
    if not items:
        raise DataError(task.name, "holds no items", "is it the right file?")
    return sorted(items, key=lambda item: seed_of(seed, "limit", item.key))[:limit]


def scored(model: str, task: Task, items: Sequence[Item], exchanges: Sequence[Exchange]) -> Cell:
    """Score stored answers: no model is needed."""
    return Cell(
        model=model,
        task=task.name,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        outcomes=tuple(task.score(i, e.answer) for i, e in zip(items, exchanges, strict=True)),
        clusters=tuple(i.cluster for i in items) if any(i.cluster for i in items) else (),
        categories=tuple(i.category for i in items),
        tokens=sum(e.usage.prompt_tokens + e.usage.completion_tokens for e in exchanges),
        note=task.note,
    )
