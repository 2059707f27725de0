"""Problems with reference answers, and evaluation sets, from JSONL files."""

import json
from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError
from spiritsafe.make.data.settings import EvaluationPart
from spiritsafe.models.pypi import pypi_file
from spiritsafe.prompts import Prompt, split_of
from spiritsafe.record import Message, jsonl_lines, prompt_digest


def problems(
    path: str, *, question: str = "question", answer: str = "answer", heldout_share: float = 0.0
) -> list[Prompt]:
    """Prompts whose answers can be checked, equal questions once. Of an answer like GSM8K's, what follows `####`.

    Raises `DataError` for a missing or broken file or field.
    """
    found: dict[str, Prompt] = {}
    for row in _rows(path, (question, answer)):
        messages = (Message(role="user", content=row[question]),)
        digest = prompt_digest(messages)
        prompt = Prompt(
            digest=digest,
            messages=messages,
            split=split_of(messages, heldout_share=heldout_share),
            source=path,
            options={"answer": row[answer].rpartition("####")[2].strip()},
        )
        found.setdefault(digest, prompt)
    return list(found.values())


def evaluation_texts(part: EvaluationPart) -> list[str]:
    """The text of every item of an evaluation set, its fields one below the other. Raises `DataError`."""
    return ["\n".join(row[field] for field in part.fields) for row in _rows(part.path, part.fields)]


def _rows(path: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    file = pypi_file(path.removeprefix("pypi:")) if path.startswith("pypi:") else Path(path)
    if not file.is_file():
        raise DataError(path, "no such file")
    rows = []
    for number, line in jsonl_lines(file.read_text(encoding="utf-8-sig")):
        rows.append(_row(path, number, line, fields))
    return rows


def _row(path: str, number: int, line: str, fields: tuple[str, ...]) -> dict[str, str]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(path, f"line {number} is not JSON ({error})") from None
    missing = [
        field for field in fields if not isinstance(row, dict) or not isinstance(row.get(field), str | int | float)
    ]
    if missing:
        has = f"; it has {', '.join(row)}" if isinstance(row, dict) else ""
        raise DataError(path, f"line {number} has no text '{missing[0]}'{has}", "name the fields that hold the text")
    return {field: str(row[field]) for field in fields}
