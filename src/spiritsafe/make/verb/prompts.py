"""Where a making's prompts come from, by one string.

FILE               .jsonl, .json, .csv, .txt and others, see `spiritsafe.prompt_files`; with an `answer` beside the
                   question, only correct answers of the teacher are kept
self:NUM           the teacher writes them itself (Magpie, arXiv 2406.08464)
task:FAMILY:NUM    verifiable tasks of a reasoning-gym family; only correct answers are kept
"""

from collections.abc import Callable
from pathlib import Path

from spiritsafe.errors import DataError, UsageError
from spiritsafe.make.verb.possible import Gives
from spiritsafe.make.verb.settings import MakeSettings, picked
from spiritsafe.prompt_files import KNOWN, ending_of
from spiritsafe.prompts import Prompt, read_prompt_file, synthesise, task_prompts
from spiritsafe.recipe import PromptsPart, TaskPart
from spiritsafe.record import Exchange, Sampling, file_digest

FORMS = f"a FILE ({KNOWN}), self:NUM or task:FAMILY:NUM"
Generate = Callable[[int, Sampling], list[Exchange]]


def check_source(source: str, *, weights: bool) -> dict[str, str]:
    """Digests of the files a source names.

    Raises `UsageError` where it is none or asks too much of the teacher, `DataError` for a form of file not known.
    """
    form, _, rest = source.partition(":")
    if form in ("self", "task") and rest:
        if not rest.rpartition(":")[2].isdecimal() or (form == "task") != (":" in rest):
            raise UsageError(f"--prompts {source}", "is not known", FORMS)
        if form == "self" and not weights:
            what = "leaves the user's turn open for the teacher, which needs its weights"
            raise UsageError(f"--prompts {source}", what, "name a file")
        return {}
    if not Path(source).is_file():
        raise UsageError(f"--prompts {source or '(none)'}", "no such file", FORMS)
    ending_of(Path(source))
    return {"prompts": file_digest(Path(source))}


def heldout_share(settings: MakeSettings, kind: Gives) -> float:
    """The share of the prompts that is held out: none if nothing can be compared on them."""
    return settings.heldout.share if kind == "weights" or settings.method == "judged" else 0.0


def check_prompts(settings: MakeSettings, kind: Gives) -> str:
    """Read the prompts without any model; how a file was read, or "". Raises `DataError` as the making would."""
    said: list[str] = []
    if not settings.prompts.startswith("self:"):
        read_prompts(settings, heldout_share(settings, kind), _unasked, say=said.append)
    return "\n".join(said)


def _unasked(num: int, sampling: Sampling) -> list[Exchange]:
    raise AssertionError("only a teacher's own prompts are generated")


def read_prompts(
    settings: MakeSettings, share: float, generate: Generate, *, say: Callable[[str], None] = lambda text: None
) -> list[Prompt]:
    """All prompts, equal ones once, under the limit; a `share` of them, by their content, is held out.

    `generate(n, sampling)` returns `n` exchanges of an open user turn; `say` is told how a file was read. Raises
    `DataError`.
    """
    source, seed = settings.prompts, settings.run.seed
    form, _, rest = source.partition(":")
    if form == "self" and rest:
        num = min(int(rest), settings.limit or int(rest))
        held = min(round(num * share), num - 1)
        return synthesise(generate, PromptsPart(num_train=num - held, num_heldout=held or 1), seed=seed)
    if form == "task" and rest:
        family, _, num_text = rest.rpartition(":")
        every = task_prompts([TaskPart(family=family, num=int(num_text), heldout_share=share)], seed=seed)
    else:
        found = read_prompt_file(Path(source), heldout_share=share)
        every = found.prompts
        say(found.said)
    chosen = [every[i] for i in picked(len(every), settings.limit, seed=seed)]
    if not any(p.split == "train" for p in chosen):
        raise DataError(
            source, f"has no prompt to learn from ({len(chosen)} held out)", "give more, or heldout.share=0"
        )
    return chosen
