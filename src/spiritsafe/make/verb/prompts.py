"""Where a making's prompts come from, by one string.

FILE.jsonl         a `prompt`, `question`, `instruction` or `text`, or `messages`, a line; with a `question` and its
                   `answer`, only correct answers of the teacher are kept
FILE.txt           a prompt a line
self:NUM           the teacher writes them itself (Magpie, arXiv 2406.08464)
task:FAMILY:NUM    verifiable tasks of a reasoning-gym family; only correct answers are kept
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spiritsafe.errors import DataError, UsageError
from spiritsafe.make.verb.settings import MakeSettings, picked
from spiritsafe.prompts import Prompt, split_of, synthesise, task_prompts
from spiritsafe.recipe import PromptsPart, TaskPart
from spiritsafe.record import Exchange, Message, Sampling, file_digest, prompt_digest

FIELDS = ("prompt", "question", "instruction", "text")
FORMS = "FILE.jsonl, FILE.txt, self:NUM or task:FAMILY:NUM"
Generate = Callable[[int, Sampling], list[Exchange]]


def check_source(source: str, *, weights: bool) -> dict[str, str]:
    """Digests of the files a source names. Raises `UsageError` where it is none, or asks too much of the teacher."""
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
    return {"prompts": file_digest(Path(source))}


def read_prompts(settings: MakeSettings, share: float, generate: Generate) -> list[Prompt]:
    """All prompts, equal ones once, under the limit; a `share` of them, by their content, is held out.

    `generate(n, sampling)` returns `n` exchanges of an open user turn. Raises `DataError`.
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
        every = list({p.digest: p for p in _from_file(Path(source), share)}.values())
    chosen = [every[i] for i in picked(len(every), settings.limit, seed=seed)]
    if not any(p.split == "train" for p in chosen):
        raise DataError(
            source, f"has no prompt to learn from ({len(chosen)} held out)", "give more, or heldout.share=0"
        )
    return chosen


def _from_file(path: Path, share: float) -> list[Prompt]:
    lines = [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    if path.suffix != ".jsonl":
        return [_prompt((Message(role="user", content=line.strip()),), share, path, {}) for _, line in lines]
    return [_from_row(path, number, line, share) for number, line in lines]


def _from_row(path: Path, number: int, line: str, share: float) -> Prompt:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(str(path), f"line {number} is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(str(path), f"line {number} is no object", f"give each a field {', '.join(FIELDS)} or messages")
    try:
        if "family" in row and "split" in row:
            return Prompt.model_validate(row)
        if "messages" in row:
            return _prompt(tuple(Message.model_validate(m) for m in row["messages"]), share, path, {})
    except (ValidationError, TypeError) as error:
        said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(str(path), f"line {number} is broken: {said}") from None
    text = next((row[field] for field in FIELDS if isinstance(row.get(field), str) and row[field].strip()), None)
    if text is None:
        what = f"line {number} has no prompt; it has {', '.join(row) or 'nothing'}"
        raise DataError(str(path), what, f"name it {', '.join(FIELDS)} or messages")
    reference = row.get("answer") if "question" in row else None
    options = {"answer": reference.rpartition("####")[2].strip()} if isinstance(reference, str) else {}
    return _prompt((Message(role="user", content=text),), share, path, options)


def _prompt(messages: tuple[Message, ...], share: float, path: Path, options: dict[str, Any]) -> Prompt:
    return Prompt(
        digest=prompt_digest(messages),
        messages=messages,
        split=split_of(messages, heldout_share=share),
        source=path.name,
        options=options,
    )
