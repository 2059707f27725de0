"""Files of other harnesses by their form: lm-evaluation-harness results and samples, inspect logs.

Where a file holds single samples, its figures are ours over those samples, and models are compared on the samples
they share. Where it holds means alone, they stand as the file gives them, and are compared with nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.harness import Cell
from spiritsafe.record import Verdict

FORMS = "an lm-evaluation-harness results_*.json or samples_*.jsonl, or an inspect log (.json, .eval)"


@dataclass(frozen=True)
class Imported:
    """Cells of single samples, verdicts of means, and what was left out and why."""

    cells: list[Cell] = field(default_factory=list)
    means: list[Verdict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_foreign(paths: Sequence[Path]) -> Imported:
    """Read files of other harnesses. Raises `DataError` for one that is none, `UsageError` for one figure twice."""
    found = [_read(path) for path in paths]
    cells = [cell for part in found for cell in part.cells]
    means = [verdict for part in found for verdict in part.means]
    named = [(c.model, c.task, c.metric) for c in cells] + [
        (v.subject, v.detail["task"], v.detail["metric"]) for v in means
    ]
    twice = sorted({key for key in named if named.count(key) > 1})
    if twice:
        raise UsageError("--import", f"holds {twice[0][2]} of {twice[0][0]} on {twice[0][1]} twice", "name it once")
    return Imported(cells, means, [text for part in found for text in part.left_out])


def _read(path: Path) -> Imported:
    from spiritsafe.measure.foreign import inspect_log, lm_eval

    if not path.is_file():
        raise DataError(str(path), "no such file", f"name {FORMS}")
    if path.suffix == ".eval":
        return inspect_log.read_archive(path)
    if path.suffix == ".jsonl":
        return lm_eval.read_samples(path)
    held = _json(path)
    if "results" in held and "configs" in held:
        return lm_eval.read_results(path, held)
    if "eval" in held and "plan" in held:
        return inspect_log.read_log(path, held)
    raise DataError(str(path), "is of no known form", f"name {FORMS}")


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(str(path), f"is not JSON ({error})", f"name {FORMS}") from None
    if not isinstance(held, dict):
        raise DataError(str(path), "is of no known form", f"name {FORMS}")
    return held


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
