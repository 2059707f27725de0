"""Tasks and suites by name; a task's own file is imported when it is asked for."""

from collections.abc import Callable, Sequence
from importlib import import_module

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.task import Task, items_of

LANGUAGES = ("de", "en", "es", "fr", "zh")
BBH = (
    "boolean_expressions",
    "date_understanding",
    "logical_deduction_three_objects",
    "navigate",
    "object_counting",
    "sports_understanding",
)
HARMFUL = (
    "harmbench", "simple-safety-tests", "do-not-answer", "xstest-unsafe", "hh-harmless", "ailuminate", "xsafety-de"
)  # fmt: skip
HARMLESS = ("xstest-safe", "frr", "frr-de")
BBQ = ("bbq-ambiguous", "bbq-disambiguated")
TRUTHFULQA = ("truthfulqa-mc1", "truthfulqa-mc2")
JAILBREAKBENCH = ("jailbreakbench", "jailbreakbench-multi-turn")
SAMPLED = ("semantic-entropy", "self-consistency")
FORMS = {
    "gym": "gym:FAMILY",
    "jailbreak": "jailbreak:SET[#SEED[,MOST_CHARACTERS]]",
    **{name: f"{name}[:FILE|TASK]" for name in SAMPLED},
}
FILES = {
    "gsm8k": "gsm8k",
    **{f"mgsm-{language}": "mgsm" for language in LANGUAGES},
    **{f"bbh-{name}": "bbh" for name in BBH},
    **dict.fromkeys((*HARMFUL, *HARMLESS), "prompts"),
    **dict.fromkeys(BBQ, "bbq"),
    "hatecheck-de": "hatecheck",
    **dict.fromkeys(TRUTHFULQA, "truthfulqa"),
    "gym": "gym",
    "jailbreak": "jailbreaks",
    **dict.fromkeys(JAILBREAKBENCH, "jailbreaks"),
    **dict.fromkeys(SAMPLED, "sampled"),
}
SUITES = {
    "nature": (
        "simple-safety-tests",
        "bbq-ambiguous",
        "bbq-disambiguated",
        "hh-harmless",
        "xstest-unsafe",
        "xstest-safe",
        "do-not-answer",
        "harmbench",
    ),
    "safety": (*HARMFUL, *HARMLESS, *BBQ, "hatecheck-de"),
    "jailbreaks": ("harmbench", "jailbreak:harmbench", *JAILBREAKBENCH),
    "german": ("xsafety-de", "frr-de", "hatecheck-de", "mgsm-de"),
    "quality": ("gsm8k", *(f"mgsm-{language}" for language in LANGUAGES), *(f"bbh-{name}" for name in BBH)),
    "truthfulqa": TRUTHFULQA,
    "hallucination": (*TRUTHFULQA, *SAMPLED),
    "mgsm": tuple(f"mgsm-{language}" for language in LANGUAGES),
    "bbh": tuple(f"bbh-{name}" for name in BBH),
}


def task_names() -> list[str]:
    """All tasks by name; those that are many are told by their form."""
    return [FORMS.get(name, name) for name in FILES]


def find_task(name: str) -> Task:
    """A task by name. Raises `UsageError` for an unknown one."""
    stem, _, rest = name.partition(":")
    known = stem in FILES and (stem in SAMPLED or bool(rest) == (stem in FORMS))
    if not known or (stem == "jailbreak" and not _is_jailbreak(rest)):
        raise UsageError(f"task {name}", "is not known", f"one of {', '.join(task_names())}")
    task: Task = import_module(f"spiritsafe.measure.tasks.{FILES[stem]}").task(name)
    return task


def _is_jailbreak(rest: str) -> bool:
    questions, _, more = rest.partition("#")
    most = more.partition(",")[2]
    return questions in HARMFUL and (most.isdigit() or "," not in more)


def suite_tasks(name: str) -> tuple[str, ...]:
    """The names of a suite's tasks. Raises `UsageError` for an unknown suite."""
    if name not in SUITES:
        raise UsageError(f"suite {name}", "is not known", f"one of {', '.join(SUITES)}")
    return SUITES[name]


def available(tasks: Sequence[Task], data: str, tell: Callable[[str], None]) -> list[Task]:
    """The tasks of a suite whose published files are at hand; each one left out is told, with the reason."""
    kept = []
    for task in tasks:
        try:
            items_of(task, data)
            kept.append(task)
        except DataError as error:
            tell(f"left out: {task.name}, {error}")
    return kept
