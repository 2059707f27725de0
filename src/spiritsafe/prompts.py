"""Where prompts come from: self-synthesis by the teacher, verifiable tasks and files; de-duplicated and split.

FILE.jsonl    a `prompt`, `question`, `instruction` or `text`, or `messages`, a line; a `question` may have its `answer`
any other     a prompt a line

Not covered: data sets from hubs.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from spiritsafe.errors import DataError
from spiritsafe.recipe import PromptsPart, TaskPart
from spiritsafe.record import Exchange, Message, Record, Sampling, prompt_digest, seed_of

WordPairs = set[tuple[str, str]]
FIELDS = ("prompt", "question", "instruction", "text")


class Prompt(Record):
    """A prompt and its place: `split` follows from its content alone. Tasks carry how to check an answer."""

    version: Literal[1] = 1
    digest: str
    messages: tuple[Message, ...]
    split: Literal["train", "heldout"]
    source: str
    family: str = ""
    index: int = -1
    options: dict[str, Any] = Field(default_factory=dict)


def clean(text: str, *, min_words: int) -> str | None:
    """A synthesised user turn on one line, or None where it is no usable prompt."""
    text = " ".join(text.split())
    words = text.split()
    if len(words) < min_words or not text.isprintable() or len(set(words)) < len(words) / 2:
        return None
    return text


def near_duplicate(pairs: WordPairs, kept: Iterable[WordPairs], *, threshold: float) -> bool:
    """Whether one of the kept texts shares at least `threshold` of its `word_pairs` (Jaccard)."""
    return any(jaccard(pairs, other) >= threshold for other in kept)


def word_pairs(text: str) -> WordPairs:
    """Neighbouring words, lower-cased; numbers stay apart from one another."""
    words = ["", *re.findall(r"\w+|[^\w\s]", text.lower()), ""]
    return set(pairwise(words))


def jaccard(a: set[Any], b: set[Any]) -> float:
    """Shared part of two sets' union; two empty sets are equal."""
    return len(a & b) / len(a | b) if a | b else 1.0


def split_of(messages: tuple[Message, ...], *, heldout_share: float) -> Literal["train", "heldout"]:
    """Where a prompt belongs, by its content hash alone: it can never be in both."""
    bucket = int(hashlib.sha256(("split" + prompt_digest(messages)).encode()).hexdigest()[:8], 16)
    return "heldout" if bucket < heldout_share * 16**8 else "train"


def task_prompts(tasks: Sequence[TaskPart], *, seed: int) -> list[Prompt]:
    """Verifiable tasks of reasoning-gym families (arXiv 2505.24760), equal ones once.

    Raises `RecipeError` for an unknown family or option.
    """
    from spiritsafe.checks.verify import questions

    found: dict[str, Prompt] = {}
    for task in tasks:
        # reasoning-gym draws item i with seed + i: neighbouring seeds would share all tasks but one.
        own = seed_of(seed, "tasks", task.family) % 2**31
        for index, question in enumerate(questions(task.family, task.options, size=task.num, seed=own)):
            messages = (Message(role="user", content=question),)
            digest = prompt_digest(messages)
            found.setdefault(
                digest,
                Prompt(
                    digest=digest,
                    messages=messages,
                    split=split_of(messages, heldout_share=task.heldout_share),
                    source="reasoning-gym",
                    family=task.family,
                    index=index,
                    options={**task.options, "seed": own, "size": task.num},
                ),
            )
    return list(found.values())


def file_prompts(path: Path, *, heldout_share: float) -> list[Prompt]:
    """The prompts of a file, equal ones once; an `answer` beside a `question` is kept in `options`.

    Raises `DataError`, naming the line, where it is broken or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(str(path), f"is not UTF-8 ({error.reason} at byte {error.start})", "convert it") from None
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix == ".jsonl":
        every = [_from_row(path, number, line, heldout_share) for number, line in lines]
    else:
        every = [_from_file(path, (Message(role="user", content=line.strip()),), heldout_share) for _, line in lines]
    if not every:
        raise DataError(str(path), "holds no prompt", "is it the right file?")
    return list({p.digest: p for p in every}.values())


def synthesise(
    generate: Callable[[int, Sampling], list[Exchange]], part: PromptsPart, *, seed: int, known: Sequence[Prompt] = ()
) -> list[Prompt]:
    """Prompts that the model writes itself, its user turn left open (Magpie, arXiv 2406.08464).

    `generate(n, sampling)` returns `n` exchanges of an open user turn. Rounds are added until both splits
    are full; the result holds exactly `num_train` and `num_heldout` prompts.
    """
    share = part.num_heldout / (part.num_train + part.num_heldout)
    wanted = {"train": part.num_train, "heldout": part.num_heldout}
    chosen: list[Prompt] = []
    kept = [word_pairs(p.messages[-1].content) for p in known]
    for attempt in range(20):
        missing = sum(wanted.values()) - len(chosen)
        sampling = Sampling(
            temperature=part.temperature,
            top_p=part.top_p,
            max_tokens=part.max_tokens,
            seed=seed_of(seed, "synthesise", attempt),
        )
        for exchange in generate(max(16, round(2.2 * missing)), sampling):
            text = clean(exchange.answer, min_words=part.min_words) if exchange.finish_reason == "stop" else None
            if text is None or near_duplicate(word_pairs(text), kept, threshold=part.near_duplicate):
                continue
            messages = (Message(role="user", content=text),)
            split = split_of(messages, heldout_share=share)
            if sum(p.split == split for p in chosen) < wanted[split]:
                kept.append(word_pairs(text))
                digest = prompt_digest(messages)
                chosen.append(Prompt(digest=digest, messages=messages, split=split, source="self-synthesis"))
        if len(chosen) == sum(wanted.values()):
            return chosen
    raise DataError("prompts", f"the teacher wrote only {len(chosen)} usable prompts in 20 rounds", "ask for fewer")


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
            return _from_file(path, tuple(Message.model_validate(m) for m in row["messages"]), share)
    except (ValidationError, TypeError) as error:
        said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
        raise DataError(str(path), f"line {number} is broken: {said}") from None
    text = next((row[field] for field in FIELDS if isinstance(row.get(field), str) and row[field].strip()), None)
    if text is None:
        what = f"line {number} has no prompt; it has {', '.join(row) or 'nothing'}"
        raise DataError(str(path), what, f"name it {', '.join(FIELDS)} or messages")
    reference = row.get("answer") if "question" in row else None
    options = {"answer": reference.rpartition("####")[2].strip()} if isinstance(reference, str) else {}
    return _from_file(path, (Message(role="user", content=text),), share, options)


def _from_file(
    path: Path, messages: tuple[Message, ...], share: float, options: dict[str, Any] | None = None
) -> Prompt:
    return Prompt(
        digest=prompt_digest(messages),
        messages=messages,
        split=split_of(messages, heldout_share=share),
        source=path.name,
        options=options or {},
    )
