"""What single samples and means of another harness become: cells, or verdicts that are compared with nothing."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from spiritsafe.measure.harness import Cell
from spiritsafe.record import Verdict


@dataclass(frozen=True)
class Imported:
    """Cells of single samples, verdicts of means, and what was left out and why."""

    cells: list[Cell] = field(default_factory=list)
    means: list[Verdict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


# Share of a metric's samples that may lack a score; beyond it, what the others score says little of the whole.
MOST_UNSCORED = 0.25
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # inspect's marks


def number_of(value: Any) -> float | None:
    """A score as a number: a mark, a truth value, a number, a number as text; None if it is not scored."""
    if isinstance(value, str):
        if value in LETTERS:
            return LETTERS[value]
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool | int | float) and isfinite(value):
        return float(value)
    return None


@dataclass
class Scored:
    """One task's single samples while they are read: scores by metric and sample, and how many have none."""

    model: str
    task: str
    note: str
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    unscored: dict[str, int] = field(default_factory=dict)
    better: dict[str, bool | None] = field(default_factory=dict)

    def add(self, metric: str, key: str, value: float | None, better: bool | None) -> None:
        """One sample's score; None for one that was not scored. A metric is ranked if all its samples are."""
        self.better[metric] = better if self.better.get(metric, better) == better else None
        if value is None:
            self.unscored[metric] = self.unscored.get(metric, 0) + 1
        else:
            self.scores.setdefault(metric, {}).setdefault(key, []).append(value)

    def into(self, imported: Imported, where: str) -> None:
        """Add a cell for each metric, the mean over a sample's epochs; what is left out is named."""
        for metric in sorted({*self.scores, *self.unscored}):
            by_sample = {key: sum(values) / len(values) for key, values in self.scores.get(metric, {}).items()}
            lacking = self.unscored.get(metric, 0)
            total = lacking + len(by_sample)
            if by_sample and lacking > MOST_UNSCORED * total:
                imported.left_out.append(f"{where}: {metric}: {lacking} of {total} samples have no score, too many")
                continue
            better = self.better.get(metric)
            note = self.note + (f"; {lacking} samples without a score are left out" if lacking else "")
            cell = sample_cell(self.model, self.task, metric, values=by_sample, better=better, note=note)
            if cell is None:
                imported.left_out.append(f"{where}: {metric} is no score between 0 and 1")
                continue
            imported.cells.append(cell)
            if lacking:
                imported.left_out.append(f"{where}: {metric}: {lacking} samples without a score")


def mean_verdict(
    model: str, task: str, metric: str, *, value: float, error: float | None, n: int, better: bool | None, note: str
) -> Verdict:
    """A mean as another harness gives it, 1.96 of its standard errors around it; without one, no interval."""
    reach = 1.96 * (error or 0.0)
    return Verdict(
        room="measure",
        name=f"{task}: {metric}",
        subject=model,
        claim=f"{model}: {metric} {value:.1%} on {task}, as imported.",
        value=value,
        unit="share",
        interval=None if error is None else (max(0.0, value - reach), min(1.0, value + reach)),
        n=n,
        method="a mean and its standard error as another harness wrote them, 1.96 standard errors each way",
        assumptions=("prompts are a sample of their set",),
        limits=(note, "imported without single samples: compared with nothing"),
        detail={
            "task": task, "metric": metric, "items": n, "tokens": 0, "setting": "off", "saturated": False,
            "imported": True, "higher_is_better": better,
        },
    )  # fmt: skip


def plain(name: str) -> str:
    """A metric's name in letters, digits and underscores, so that a gate can name it."""
    return "_".join("".join(c if c.isalnum() else " " for c in name).split())


def sample_cell(
    model: str, task: str, metric: str, *, values: dict[str, float], better: bool | None, note: str
) -> Cell | None:
    """A cell of scores in [0, 1] by sample; None where one lies outside."""
    outcomes = tuple(values.values())
    if not outcomes or not all(0 <= value <= 1 for value in outcomes):
        return None
    return Cell(
        model=model,
        task=task,
        metric=metric,
        higher_is_better=better,
        outcomes=outcomes,
        clusters=(),
        categories=("",) * len(outcomes),
        tokens=0,
        note=note,
        keys=tuple(values),
        is_share=set(outcomes) <= {0.0, 1.0},
        imported=True,
    )
