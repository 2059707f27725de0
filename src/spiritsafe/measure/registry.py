"""Tasks and suites by name; a task's own file is imported when it is asked for."""

from importlib import import_module

from spiritsafe.errors import UsageError
from spiritsafe.measure.task import Task

LANGUAGES = ("de", "en", "es", "fr", "zh")
BBH = (
    "boolean_expressions",
    "date_understanding",
    "logical_deduction_three_objects",
    "navigate",
    "object_counting",
    "sports_understanding",
)
REFUSALS = ("xstest-safe", "xstest-unsafe", "harmbench", "simple-safety-tests")
FILES = {
    "gsm8k": "gsm8k",
    **{f"mgsm-{language}": "mgsm" for language in LANGUAGES},
    **{f"bbh-{name}": "bbh" for name in BBH},
    **dict.fromkeys(REFUSALS, "refusals"),
    "gym": "gym",
}
SUITES = {
    "refusals": REFUSALS,
    "quality": ("gsm8k", *(f"mgsm-{language}" for language in LANGUAGES), *(f"bbh-{name}" for name in BBH)),
    "mgsm": tuple(f"mgsm-{language}" for language in LANGUAGES),
    "bbh": tuple(f"bbh-{name}" for name in BBH),
}


def task_names() -> list[str]:
    """All tasks by name; `gym:FAMILY` stands for each reasoning-gym family."""
    return [name if name != "gym" else "gym:FAMILY" for name in FILES]


def find_task(name: str) -> Task:
    """A task by name. Raises `UsageError` for an unknown one."""
    stem, _, rest = name.partition(":")
    if stem not in FILES or bool(rest) != (stem == "gym"):
        raise UsageError(f"task {name}", "is not known", f"one of {', '.join(task_names())}")
    task: Task = import_module(f"spiritsafe.measure.tasks.{FILES[stem]}").task(name)
    return task


def suite_tasks(name: str) -> tuple[str, ...]:
    """The names of a suite's tasks. Raises `UsageError` for an unknown suite."""
    if name not in SUITES:
        raise UsageError(f"suite {name}", "is not known", f"one of {', '.join(SUITES)}")
    return SUITES[name]
