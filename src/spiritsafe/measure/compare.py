"""The table's claims: each cell's share, every model against the first on the same prompts, and the mean.

Holm over all comparisons of the table. A task on which all models reach 95 % tells nothing apart: it says
so and is left out of the mean.
"""

from collections.abc import Sequence
from math import sqrt

from spiritsafe.evidence import Comparison, Estimate, clustered_share, compare_paired, holm, wilson
from spiritsafe.measure.harness import Cell
from spiritsafe.record import Verdict

SATURATED = 0.95
SAMPLE = ("prompts are a sample of their set",)


def table_verdicts(cells: Sequence[Cell], *, seed: int) -> list[Verdict]:
    """Shares, paired differences to the first model, and each model's mean over the tasks that tell models apart."""
    tasks = list(dict.fromkeys(c.task for c in cells))
    full = {task for task in tasks if saturated([c for c in cells if c.task == task])}
    verdicts = [_share(cell, seed, cell.task in full) for cell in cells]
    return [*verdicts, *_differences(cells, seed), *_means(cells, full, seed)]


def saturated(column: Sequence[Cell]) -> bool:
    """Whether every model reaches 95 % of what is good on this task."""
    return all(_good(estimate(cell).value, cell) >= SATURATED for cell in column)


def estimate(cell: Cell) -> Estimate:
    """A cell's share with Wilson's interval, at the effective number of items where they come in clusters."""
    if len(set(cell.clusters)) > 1:
        return clustered_share(cell.outcomes, cell.clusters)
    return wilson(sum(cell.outcomes), len(cell.outcomes))


def _good(share: float, cell: Cell) -> float:
    return share if cell.higher_is_better else 1 - share


def _share(cell: Cell, seed: int, full: bool) -> Verdict:
    found = estimate(cell)
    told = "all models reach 95 %: this task tells them not apart and is left out of the mean"
    return Verdict(
        room="measure",
        name=f"{cell.task}: {cell.metric}",
        subject=cell.model,
        claim=f"{cell.model}: {cell.metric} {found.value:.1%} on {cell.task}.",
        value=found.value,
        unit="share",
        interval=(found.low, found.high),
        n=found.n,
        seed=seed,
        method="Wilson interval" + (" at the clusters' effective number, Student's t" if cell.clusters else ""),
        assumptions=SAMPLE,
        limits=tuple(text for text in (cell.note, told if full else "") if text),
        detail={"task": cell.task, "metric": cell.metric, "items": len(cell.outcomes), "tokens": cell.tokens},
    )


def _differences(cells: Sequence[Cell], seed: int) -> list[Verdict]:
    pairs = []
    for task in dict.fromkeys(c.task for c in cells):
        first, *others = [c for c in cells if c.task == task]
        for other in others:
            groups = other.clusters if len(set(other.clusters)) > 1 else None
            pairs.append((first, other, compare_paired(other.outcomes, first.outcomes, clusters=groups, seed=seed)))
    adjusted = holm([found.p_value for _, _, found in pairs])
    return [_difference(a, b, found, p, seed) for (a, b, found), p in zip(pairs, adjusted, strict=True)]


def _difference(first: Cell, other: Cell, found: Comparison, p_adjusted: float, seed: int) -> Verdict:
    clear = p_adjusted <= 0.05
    word = "higher" if found.difference > 0 else "lower"
    claim = f"{other.model} has a {word} {other.metric} on {other.task} than {first.model}."
    least = f"differences of at least {found.least_effect:.3f} would be found with 80 % power"
    test = "signs of clusters drawn at random" if other.clusters else "exact McNemar"
    return Verdict(
        room="measure",
        name=f"{other.task}: difference in {other.metric}",
        subject=f"{other.model} vs {first.model}",
        claim=claim if clear else f"No difference in {other.metric} on {other.task} could be shown; {least}.",
        value=found.difference,
        unit="share",
        interval=(found.low, found.high),
        n=found.units,
        seed=seed,
        method=f"{test} on the same prompts; Bonett-Price interval; Holm over the table",
        assumptions=SAMPLE,
        limits=tuple(text for text in (least, other.note) if text),
        p_value=found.p_value,
        p_adjusted=p_adjusted,
        rejected=clear,
        detail={"task": other.task, "metric": other.metric, "least_effect": found.least_effect},
    )


def _means(cells: Sequence[Cell], full: set[str], seed: int) -> list[Verdict]:
    """Mean over tasks of one metric; its interval joins the tasks' own (MOVER, Zou and Donner 2008)."""
    verdicts = []
    for model, metric in dict.fromkeys((c.model, c.metric) for c in cells):
        found = [estimate(c) for c in cells if (c.model, c.metric) == (model, metric) and c.task not in full]
        if len(found) < 2:
            continue
        value = sum(e.value for e in found) / len(found)
        low = value - sqrt(sum((e.value - e.low) ** 2 for e in found)) / len(found)
        high = value + sqrt(sum((e.high - e.value) ** 2 for e in found)) / len(found)
        verdicts.append(
            Verdict(
                room="measure",
                name=f"mean {metric}",
                subject=model,
                claim=f"{model}: mean {metric} {value:.1%} over {len(found)} tasks.",
                value=value,
                unit="share",
                interval=(low, high),
                n=sum(e.n for e in found),
                seed=seed,
                method="unweighted mean over tasks, intervals joined by MOVER",
                assumptions=(*SAMPLE, "tasks are independent samples"),
                limits=(f"left out, all models reach 95 %: {', '.join(sorted(full))}",) if full else (),
            )
        )
    return verdicts
