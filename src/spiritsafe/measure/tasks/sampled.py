"""Hallucination without a reference: what several sampled answers to one prompt say of one another.

    semantic-entropy            entropy over meanings, in nats (Farquhar et al., Nature 630, 2024; arXiv 2302.09664)
    self-consistency            inconsistency: 1 less the support by other answers (SelfCheckGPT, arXiv 2303.08896)
    semantic-entropy:FILE       of a file of prompts, see `spiritsafe.prompt_files`
    semantic-entropy:TASK       of another task's prompts

Without either, the questions are TruthfulQA's, asked as for its multiple choice. Both read the same answers, which are
drawn at temperature 1 with a seed each. Neither ranks models: `spiritsafe.measure.meaning` says what they cannot show.
"""

from functools import partial
from math import log
from pathlib import Path

from spiritsafe.errors import DataError, UsageError
from spiritsafe.measure.meaning import UNSURE, entropy, inconsistency, likeness
from spiritsafe.measure.registry import find_task
from spiritsafe.measure.task import Item, Task, Together
from spiritsafe.prompt_files import ending_of
from spiritsafe.prompts import file_prompts
from spiritsafe.record import Sampling

QUESTIONS = "truthfulqa-mc2"
METRICS = {"semantic-entropy": "semantic_entropy", "self-consistency": "inconsistency"}


def together(name: str) -> Together:
    """How a prompt's answers are scored; by the packaged encoder."""
    by = likeness()
    if name == "semantic-entropy":
        return Together(partial(entropy, by=by), "nats", log, by.name)
    return Together(partial(inconsistency, by=by), "share of likeness", lambda samples: 1.0, by.name)


def notes() -> tuple[str, str]:
    """What neither can show."""
    return UNSURE, likeness().limit


def load(path: Path, where: str) -> list[Item]:
    """The prompts of a file, wherever data lie."""
    return [Item(prompt.messages, "") for prompt in file_prompts(path, heldout_share=1.0)]


def task(name: str) -> Task:
    """One of the two, of TruthfulQA's questions, a file's or another task's prompts. Raises `UsageError`."""
    stem, _, rest = name.partition(":")
    items = partial(load, Path(rest)) if _is_file(name, rest) else find_task(rest or QUESTIONS).load
    return Task(
        name=name,
        metric=METRICS[stem],
        load=items,
        score=lambda item, answer: False,
        sampling=Sampling(temperature=1.0, max_tokens=64),
        higher_is_better=None,
        note="; ".join(notes()),
        together=together(stem),
    )


def _is_file(name: str, rest: str) -> bool:
    if Path(rest).suffix and not Path(rest).is_file() and _says_its_form(rest):
        raise UsageError(f"task {name}", f"no such file: {rest}", "name a file of prompts, or a task")
    return bool(rest) and Path(rest).is_file()


def _says_its_form(rest: str) -> bool:
    try:
        return bool(ending_of(Path(rest)))
    except DataError:
        return False
