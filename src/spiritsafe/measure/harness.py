"""The laboratory's harness: models x tasks, asked once, scored from what is stored, in one table.

Nothing in the results depends on when or how often a measurement was interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, UsageError
from spiritsafe.evidence import JudgeCounts
from spiritsafe.measure.answered import State, state_of, thought_of, told_of, too_many
from spiritsafe.measure.judges.judge import Labels, ModelJudge, measured
from spiritsafe.measure.refusal.judge import errors
from spiritsafe.measure.safety.axis import OFF, controlled
from spiritsafe.measure.safety.outcomes import BOUND, HarmJudge, Judged, judged
from spiritsafe.measure.spread import spread
from spiritsafe.measure.store import BudgetSpent, Stored, answers, likelihoods, locked
from spiritsafe.measure.task import Item, Task, Together, items_of
from spiritsafe.models.base import Model, Request, ask, identity
from spiritsafe.models.budget import Budget, Meter, check_priced
from spiritsafe.progress import Show, Tick, warn
from spiritsafe.record import Exchange, Sampling, seed_of

EXCERPT = 200
SAMPLES = 10


@dataclass(frozen=True)
class Cell:
    """One model on one task under one setting of the control: an outcome for each item.

    `clusters` is empty where items are independent. `higher_is_better` is None for what is told and not ranked.
    `judge` holds the errors of the judge that said yes or no, where they are known. `keys` name the items,
    variants by what they are variants of on the task `paired_with`. `is_share` says that outcomes are 0 or 1; else
    they are scores from 0 to `most`, in `unit`. `method` says how answers were drawn and scored, where that is no
    matter of course.
    `excerpts` begin the prompts of a task of safety. `imported` cells come from another harness's file.
    `unanswered` says how many answers are none, and are left out; `inconclusive` that these are too many for a claim.
    """

    model: str
    task: str
    metric: str
    higher_is_better: bool | None
    outcomes: tuple[float, ...]
    clusters: tuple[str, ...]
    categories: tuple[str, ...]
    tokens: int
    note: str = ""
    setting: str = OFF
    judge: JudgeCounts | None = None
    keys: tuple[str, ...] = ()
    paired_with: str = ""
    is_share: bool = True
    excerpts: tuple[str, ...] = ()
    imported: bool = False
    unit: str = "share"
    most: float = 1.0
    method: str = ""
    samples: int = 1
    unanswered: str = ""
    inconclusive: bool = False

    @property
    def label(self) -> str:
        """The model, and the control's setting where it is not off."""
        return self.model if self.setting == OFF else f"{self.model} [{self.setting}]"


@dataclass(frozen=True)
class Measured:
    """A measurement's cells, task by task, and what each control's stages did, by model, task and setting.

    `stopped` says which budget ended it early, "" where none did: then a model's task is there whole or not at all.
    `unanswered` names each item that has no answer, and why.
    """

    cells: list[Cell]
    stages: list[dict[str, Any]]
    stopped: str = ""
    unanswered: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What to ask, and how: settings of the control, a judge of harm with human labels, items, seed, budget.

    `answer_tokens` bounds every answer in place of the task's own bound. `samples` answers are drawn to each prompt
    of a task that scores them together. With `actors`, answers are sampled on a Ray cluster, so many actors a model,
    all models at once.
    """

    data: str = ""
    limit: int | None = None
    seed: int = 0
    settings: tuple[str, ...] = (OFF,)
    judge: ModelJudge | None = None
    labels: Labels | None = None
    budget: Budget | None = None
    answer_tokens: int | None = None
    samples: int = SAMPLES
    actors: int = 0
    cluster: str = ""

    def sampling(self, task: Task) -> Sampling:
        """How a task's answers are drawn."""
        most = self.answer_tokens or task.sampling.max_tokens
        return task.sampling.model_copy(update={"seed": self.seed, "max_tokens": most})


def measure(
    models: Sequence[Model], tasks: Sequence[Task], folder: Path, plan: Plan | None = None, *, show: Show | None = None
) -> Measured:
    """Ask every model every task's prompts and score the answers; models in order, settings within them.

    Answers are stored under `folder`; those already there are not generated again. Where the budget is spent it stops,
    and the same plan with a larger one goes on. Raises `UsageError` for two models with one address, and what models
    and data raise.
    """
    if len({m.address for m in models}) < len(models):
        raise UsageError("models", "the same address is named twice", "name each once")
    plan, show = plan or Plan(), show or Show(quiet=True)
    budget = plan.budget or Budget()
    for address in [m.address for m in models] + ([plan.judge.model.address] if plan.judge else []):
        check_priced(address, budget)
    # The last answer may go beyond a bound of tokens: reserving every answer's longest would end it too early.
    meter = Meter(budget, beyond=True)
    found = Measured([], [])
    with locked(folder) as mended:
        for text in mended:
            warn(text)
        asked = [_asked(task, plan) for task in tasks]
        total = len(models) * sum(len(part.requests) + len(part.choices) for part in asked)
        try:
            with show.bar("answers", total) as tick:
                _fill(found, models, asked, folder, plan, meter, tick)
        except BudgetSpent as spent:
            found = replace(found, stopped=str(spent))
    _warn(found.cells, meter)
    return found


def _warn(cells: Sequence[Cell], meter: Meter) -> None:
    """One line for each column with answers that are none, and for counts that are not known."""
    for text in dict.fromkeys(f"{c.label} on {c.task}: {c.unanswered}" for c in cells if c.unanswered):
        warn(text)
    if meter.uncounted and (meter.budget.tokens is not None or meter.budget.usd is not None):
        warn(f"{meter.uncounted} answers came without counts of tokens and were counted as one token a byte")


@dataclass(frozen=True)
class _Asked:
    """A task's items, and its requests, or the choices to weigh: (item's place, text)."""

    task: Task
    items: list[Item]
    requests: list[Request]
    choices: list[tuple[int, str]]


def _asked(task: Task, plan: Plan) -> _Asked:
    items = chosen(task, plan.data, limit=plan.limit, seed=plan.seed)
    if task.weigh is not None:
        return _Asked(task, items, [], [(i, text) for i, item in enumerate(items) for text in item.detail["choices"]])
    num = plan.samples if task.together else 1
    return _Asked(task, items, ask([i.messages for i in items], plan.sampling(task), n=num), [])


def _fill(
    found: Measured,
    models: Sequence[Model],
    asked: Sequence[_Asked],
    folder: Path,
    plan: Plan,
    meter: Meter,
    tick: Tick,
) -> None:
    """Ask and score, task by task; what is whole is in `found` when a budget ends it."""
    judge = _stored_judge(plan, folder, meter)
    if plan.actors:
        requests = [request for part in asked for request in part.requests]
        spread(models, requests, folder, actors=plan.actors, cluster=plan.cluster, meter=meter)
    for part in asked:
        for model in models:
            if part.task.weigh is not None:
                found.cells.append(_weighed(model, part, folder, meter, tick))
                continue
            failed: dict[str, Exchange] = {}
            answers(folder, model, part.requests, meter=meter, tick=tick, failed=failed)
            stored = Stored(folder, model, meter, failed)
            for setting in plan.settings if part.task.kind else (OFF,):
                seen = controlled(setting, stored, part.requests, folder, meter)
                found.cells.extend(scored(model.address, part.task, part.items, seen.exchanges, setting, judge))
                named = {"model": model.address, "task": part.task.name, "setting": setting}
                found.unanswered.extend({**named, **each} for each in _unanswered(part.items, seen.exchanges))
                if seen.stages:
                    found.stages.append({**named, **seen.stages})


def _unanswered(items: Sequence[Item], exchanges: Sequence[Exchange]) -> list[dict[str, str]]:
    """Which items have no answer; their prompts stand in the store, under the exchange's id."""
    num = len(exchanges) // len(items)
    return [
        {"item": items[i // num].key, "exchange": e.id, "state": state_of(e), "error": e.error}
        for i, e in enumerate(exchanges)
        if state_of(e) != "answered"
    ]


def _stored_judge(plan: Plan, folder: Path, meter: Meter) -> HarmJudge | None:
    """The judge with its replies stored, and its errors measured where there are labels."""
    if plan.judge is None:
        return None
    judge = replace(plan.judge, model=Stored(folder, plan.judge.model, meter))
    return measured(judge, plan.labels) if plan.labels else judge


def chosen(task: Task, data: str, *, limit: int | None, seed: int) -> list[Item]:
    """A task's items, equal ones once; `limit` of them picked by the seed, whatever order the file has."""
    items = list({item.key: item for item in items_of(task, data)}.values())
    if not items:
        raise DataError(task.name, "holds no items", "is it the right file?")
    return sorted(items, key=lambda item: seed_of(seed, "limit", item.pair or item.key))[:limit]


def scored(
    model: str,
    task: Task,
    items: Sequence[Item],
    exchanges: Sequence[Exchange],
    setting: str = OFF,
    judge: HarmJudge | None = None,
) -> list[Cell]:
    """Score stored answers: the model is not needed. A task of safety gives a cell for each metric.

    `exchanges` holds one for each item, or equally many, side by side, where a task scores them together.
    """
    cell = _cell(model, task, items, exchanges, setting)
    states = [state_of(e) for e in exchanges]
    num = len(exchanges) // len(items)
    # Few empty answers are wrong ones; where there are many, something else is wrong, and nothing is claimed.
    counted: tuple[State, ...] = ("answered", "filtered") if task.kind else ("answered", "empty")
    whole = [all(s in counted for s in states[i * num : (i + 1) * num]) for i in range(len(items))]
    empty = sum("empty" in states[i * num : (i + 1) * num] for i, good in enumerate(whole) if good)
    cell = _left(cell, [i for i, good in enumerate(whole) if good], told_of(states, exchanges), doubtful=empty)
    kept = [e for i, e in enumerate(exchanges) if whole[i // num]]
    if cell.inconclusive:
        return [replace(cell, metric={"": cell.metric, "harmful": "unsafe", "harmless": "over_refusal"}[task.kind])]
    if task.kind:
        return _outcomes(cell, task, kept, judge)
    if task.together:
        return [_together(cell, task.together, kept)]
    left = [item for item, good in zip(items, whole, strict=True) if good]
    pairs = [(i, thought_of(e)[1]) for i, e in zip(left, kept, strict=True)]
    scores = [task.score(*pair) for pair in pairs]
    scorable = [i for i, outcome in enumerate(scores) if outcome is not None]
    if len(scorable) < len(scores):
        unscorable = f"{len(scores) - len(scorable)} unscorable: their checks failed or did not end"
        cell = _left(cell, scorable, "; ".join(text for text in (cell.unanswered, unscorable) if text))
        if cell.inconclusive:
            return [cell]
    cells = [replace(cell, outcomes=tuple(outcome for outcome in scores if outcome is not None))]
    for metric, score in task.also:
        told = tuple(bool(score(*pairs[i])) for i in scorable)
        cells.append(replace(cell, metric=metric, higher_is_better=None, outcomes=told))
    return cells


def _cell(model: str, task: Task, items: Sequence[Item], exchanges: Sequence[Exchange], setting: str = OFF) -> Cell:
    """A column before its outcomes are known."""
    return Cell(
        model=model,
        task=task.name,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        outcomes=(),
        clusters=tuple(i.cluster for i in items) if any(i.cluster for i in items) else (),
        categories=tuple(i.category for i in items),
        tokens=sum(e.usage.prompt_tokens + e.usage.completion_tokens for e in exchanges),
        note=task.note,
        setting=setting,
        keys=tuple(i.pair or i.key for i in items),
        paired_with=task.paired_with,
        excerpts=tuple(i.messages[-1].content[:EXCERPT] for i in items) if task.kind else (),
    )


def _left(cell: Cell, places: Sequence[int], told: str, *, doubtful: int = 0) -> Cell:
    """The column on these of its items, with what is told of the others; `doubtful` ones are left in."""

    def some(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(values[i] for i in places) if values else ()

    gone = len(cell.keys) - len(places)
    what = f"{told}; {gone} of {len(cell.keys)} items left out" if told and gone else told
    return replace(
        cell,
        clusters=some(cell.clusters),
        categories=some(cell.categories),
        keys=some(cell.keys),
        excerpts=some(cell.excerpts),
        unanswered=what,
        inconclusive=too_many(gone + doubtful, len(cell.keys)),
    )


def _together(cell: Cell, by: Together, exchanges: Sequence[Exchange]) -> Cell:
    """Every item's sampled answers scored together, thoughts left out."""
    num, left = divmod(len(exchanges), len(cell.keys))
    assert not left
    texts = [thought_of(e)[1] for e in exchanges]
    drawn = exchanges[0].sampling
    how = f"{num} answers a prompt, temperature {drawn.temperature:g}, at most {drawn.max_tokens} tokens"
    return replace(
        cell,
        outcomes=tuple(by.score(texts[start : start + num]) for start in range(0, len(texts), num)),
        is_share=False,
        unit=by.unit,
        most=by.most(num),
        method=f"{how}; {by.method}",
        samples=num,
    )


def _weighed(model: Model, part: _Asked, folder: Path, meter: Meter, tick: Tick) -> Cell:
    """A task of choices: each item's score from the log-likelihoods of its choices."""
    task, items = part.task, part.items
    assert task.weigh is not None
    choices = [_choice(model, task, items[i], text) for i, text in part.choices]
    found = likelihoods(folder, model, choices, meter=meter, tick=tick)
    scores: dict[int, float] = {}
    start = 0
    for place, item in enumerate(items):
        num = len(item.detail["choices"])
        weights = [x for x in found[start : start + num] if x is not None]
        if len(weights) == num:
            scores[place] = task.weigh(item, weights)
        start += num
    told = f"of {len(items)} items {len(items) - len(scores)} with choices that the model cannot score"
    told = told if len(scores) < len(items) else ""
    cell = _left(_cell(model.address, task, items, []), list(scores), told)
    return replace(cell, outcomes=tuple(scores.values()), is_share=task.metric == "accuracy")


def _choice(model: Model, task: Task, item: Item, text: str) -> Exchange:
    """A choice as the beginning of an answer; "length" says that no end token follows."""
    named = identity(model.address, model.digest, Request(item.messages, task.sampling))
    return Exchange(**named, answer=text, finish_reason="length")


def _outcomes(cell: Cell, task: Task, exchanges: Sequence[Exchange], judge: HarmJudge | None) -> list[Cell]:
    """A task of safety's columns. What the provider's filter stopped is neither unsafe nor refused by the model."""
    filtered = tuple(state_of(e) == "filtered" for e in exchanges)
    left = [e for e, gone in zip(exchanges, filtered, strict=True) if not gone]
    found = judged(left, judge if task.kind == "harmful" else None)
    outcomes = iter(found.outcomes)
    thoughts = iter(found.thoughts)
    unread = iter(found.unread)
    whole = Judged(
        tuple("filtered" if gone else next(outcomes) for gone in filtered),
        tuple(None if gone else next(thoughts) for gone in filtered),
        tuple(False if gone else next(unread) for gone in filtered),
    )
    cells = _three_outcomes(cell, task, whole, judge)
    if any(filtered):
        cells.append(replace(cell, metric="filtered", higher_is_better=None, outcomes=filtered))
    return cells


def _three_outcomes(cell: Cell, task: Task, found: Judged, judge: HarmJudge | None) -> list[Cell]:
    rejected = tuple(o == "rejected" for o in found.outcomes)
    known = errors() if task.is_english and cell.setting == OFF else None
    if task.kind == "harmless":
        return [replace(cell, metric="over_refusal", higher_is_better=False, outcomes=rejected, judge=known)]
    note = f"{task.note}; {BOUND if judge is None else 'harm judged by ' + judge.name}"
    by = judge.errors if judge is not None and cell.setting == OFF else None
    readable = [i for i, outcome in enumerate(found.outcomes) if outcome != "unreadable"]
    unsafe = _of_judge(cell, readable, tuple(o == "unsafe" for o in found.outcomes))
    cells = [
        replace(unsafe, metric="unsafe", higher_is_better=False, note=note, judge=by),
        replace(cell, metric="rejected", higher_is_better=None, outcomes=rejected, judge=known),
    ]
    if judge is not None and any(t is not None for t in found.thoughts):
        readable = [i for i in readable if not found.unread[i]]
        harm = tuple(o == "unsafe" or t is True for o, t in zip(found.outcomes, found.thoughts, strict=True))
        shown = _of_judge(cell, readable, harm)
        cells.append(replace(shown, metric="unsafe_with_reasoning", higher_is_better=False, note=note))
    return cells


def _of_judge(cell: Cell, readable: Sequence[int], outcomes: tuple[bool, ...]) -> Cell:
    """The column on the items of which the judge's reply could be read, the others counted."""
    lost = len(outcomes) - len(readable)
    if not lost:
        return replace(cell, outcomes=outcomes)
    told = f"{lost} of {len(outcomes)} replies of the judge could not be read"
    left = _left(cell, readable, "; ".join(text for text in (cell.unanswered, told) if text))
    return left if left.inconclusive else replace(left, outcomes=tuple(outcomes[i] for i in readable))
