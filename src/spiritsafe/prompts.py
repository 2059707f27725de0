"""Where prompts come from: self-synthesis by the teacher, verifiable tasks and files; de-duplicated and split.

The forms of files: `spiritsafe.prompt_files`; of their rows: `spiritsafe.prompt_rows`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from spiritsafe.errors import DataError
from spiritsafe.prompt_files import Row, Rows, named, read_rows
from spiritsafe.prompt_rows import asked
from spiritsafe.recipe import PromptsPart, TaskPart
from spiritsafe.record import Exchange, Message, Record, Sampling, prompt_digest, seed_of

WordPairs = set[tuple[str, str]]


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


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file, and what is said of how it was read."""

    prompts: list[Prompt]
    said: str


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
    """The prompts of a file; see `read_prompt_file`."""
    return read_prompt_file(path, heldout_share=heldout_share).prompts


def read_prompt_file(path: Path, *, heldout_share: float) -> PromptFile:
    """The prompts of a file, equal ones once, and in a line what was read.

    Right answers are kept in `options` as `answer`, an answer that the file gives as `given`. Raises `DataError`,
    naming the line, if more than single rows are broken, or if it holds none.
    """
    held = read_rows(path)
    found: dict[str, Prompt] = {}
    broken: list[Row] = []
    columns: dict[str, None] = {}
    for row in held.rows:
        try:
            prompt, names = _from_row(path, row, heldout_share)
        except ValueError as error:
            broken.append(replace(row, fields=None, broken=str(error)))
            continue
        found.setdefault(prompt.digest, prompt)
        columns |= dict.fromkeys(names)
    left_out = named(broken, held.place, len(held.rows), path)
    if not found:
        raise DataError(str(path), "holds no prompt", "is it the right file?")
    return PromptFile(list(found.values()), _said(path, held, list(found.values()), columns, left_out, len(broken)))


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


def _from_row(path: Path, row: Row, share: float) -> tuple[Prompt, tuple[str, ...]]:
    """A row's prompt and the columns that it is made of. Raises `ValueError` that says what is wrong."""
    if row.fields is None:
        raise ValueError(row.broken)
    if {"digest", "messages", "split"} <= set(row.fields):
        return _own(row.fields), ("messages",)
    said = asked(row.fields)
    options: dict[str, Any] = {}
    if said.right:
        options["answer"] = said.right[0] if len(said.right) == 1 else list(said.right)
    if said.given is not None:
        options["given"] = said.given
    prompt = Prompt(
        digest=prompt_digest(said.messages),
        messages=said.messages,
        split=split_of(said.messages, heldout_share=share),
        source=path.name,
        options=options,
    )
    return prompt, said.columns


def _own(fields: dict[str, Any]) -> Prompt:
    """A prompt as a run or a making wrote it."""
    try:
        prompt = Prompt.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"is broken: {place}: {first['msg']}") from None
    if prompt.digest != prompt_digest(prompt.messages):
        raise ValueError("is broken: digest: is not that of its messages")
    return prompt


def _said(
    path: Path, held: Rows, prompts: Sequence[Prompt], columns: Iterable[str], left_out: str, num_broken: int
) -> str:
    """In a line: rows, form, columns, doubles, what was left out and what is not used."""
    names = list(columns)
    doubles = len(held.rows) - num_broken - len(prompts)
    checked = sum("answer" in p.options for p in prompts)
    given = sum("given" in p.options for p in prompts)
    others = sorted({name for row in held.rows[:100] for name in row.fields or {}} - set(names))
    parts = [
        f"{len(held.rows)} rows as {held.form}" + ("" if held.form.startswith("text") else f" ({', '.join(names)})"),
        f"{doubles} duplicates" if doubles else "",
        left_out,
        f"{len(prompts)} prompts",
        f"{checked} with a right answer to check by" if checked else "",
        f"{given} with an answer of their own, kept aside: the teacher answers anew" if given else "",
        f"not used: {', '.join(others[:6])}{', ...' if len(others) > 6 else ''}" if others else "",
    ]
    return f"{path.name}: " + "; ".join(part for part in parts if part)
