"""One measurement from the command line to its page: measure, import, compare, write; what the verb `measure` runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.compare import partial, table_verdicts
from spiritsafe.measure.every_eval import write_every_eval
from spiritsafe.measure.foreign.read import read_foreign
from spiritsafe.measure.harness import Plan, measure
from spiritsafe.measure.output import Gate, write_results
from spiritsafe.measure.registry import available, find_task, suite_tasks
from spiritsafe.measure.safety.cases import cases
from spiritsafe.measure.safety.taxonomy import covers, taxonomy_verdicts
from spiritsafe.measure.store import computed_in
from spiritsafe.measure.task import Task
from spiritsafe.models import open_model
from spiritsafe.progress import Show, warn
from spiritsafe.record import Verdict
from spiritsafe.report.lab import write_lab
from spiritsafe.report.load import read_verdicts


@dataclass(frozen=True)
class Asked:
    """What to measure, what to read of other harnesses, and where results go; a suite, tasks, or both."""

    models: tuple[str, ...]
    suite: str
    tasks: tuple[str, ...]
    imports: tuple[Path, ...]
    out: Path
    language: str = "en"
    every_eval: Path | None = None


def run_laboratory(asked: Asked, plan: Plan, gates: Sequence[Gate]) -> tuple[list[Verdict], str]:
    """Measure, and leave results and page in `asked.out`; the verdicts, and the budget that ended it early.

    Raises `UsageError` for unknown names and where there is nothing to do, and what models and data raise.
    """
    if asked.language not in ("en", "de"):
        raise UsageError(f"--lang {asked.language}", "is not known", "en or de")
    tasks, foreign, show = _tasks(asked, plan.data), read_foreign(asked.imports), Show()
    for text in foreign.left_out:
        warn(f"left out: {text}")
    found = measure([open_model(address) for address in asked.models], tasks, asked.out, plan, show=show)
    verdicts = [*table_verdicts([*found.cells, *foreign.cells], seed=plan.seed), *foreign.means]
    if covers(found.cells):
        verdicts += taxonomy_verdicts(found.cells, seed=plan.seed)
    if found.stopped:
        verdicts = partial(verdicts, found.stopped)
    if gone := sorted(_tasks_of(asked.out) - {v.detail["task"] for v in verdicts if "task" in v.detail}):
        warn(f"{asked.out}: results of {', '.join(gone)} are replaced by these; their answers are kept")
    write_results(
        asked.out,
        verdicts,
        gates,
        stages=found.stages,
        told=cases(found.cells),
        unanswered=found.unanswered,
        stopped=found.stopped,
        computed=computed_in(asked.out),
    )
    if asked.every_eval:
        write_every_eval(asked.every_eval, verdicts, {t.name: plan.sampling(t) for t in tasks})
    show.say(f"report: {write_lab(asked.out, language='de' if asked.language == 'de' else 'en')}")
    return verdicts, found.stopped


def _tasks_of(out: Path) -> set[str]:
    """The tasks of which a folder holds results; none if those were edited: they are written anew."""
    try:
        return {v.detail["task"] for v in read_verdicts(out) if "task" in v.detail}
    except DataError:
        return set()


def _tasks(asked: Asked, data: str) -> list[Task]:
    """The tasks to ask, each once; a suite's tasks whose data are not at hand are left out."""
    if not asked.models:
        if not asked.imports:
            raise UsageError("measure", "no model is named", "name an address, or --import FILE")
        return []
    suite = [find_task(name) for name in suite_tasks(asked.suite)] if asked.suite else []
    tasks = [*available(suite, data, warn), *map(find_task, asked.tasks)]
    if not tasks:
        raise UsageError("measure", "no task is named", "add --suite quality or --task NAME")
    return list({task.name: task for task in tasks}.values())
