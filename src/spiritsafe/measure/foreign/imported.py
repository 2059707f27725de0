"""What single samples and means of another harness become: cells, or verdicts that are compared with nothing."""

from dataclasses import dataclass, field

from spiritsafe.measure.harness import Cell
from spiritsafe.record import Verdict


@dataclass(frozen=True)
class Imported:
    """Cells of single samples, verdicts of means, and what was left out and why."""

    cells: list[Cell] = field(default_factory=list)
    means: list[Verdict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


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
