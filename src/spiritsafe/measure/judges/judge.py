"""A judge of harm: a model at any address, asked in its family's format; and its errors against human labels.

Its replies are stored like any model's, so judging again costs nothing. Labels: pyrit's answers that humans marked as
having met a harmful objective or not (395 in 14 files), or CSV files of the same columns.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spiritsafe.errors import DataError, UsageError
from spiritsafe.evidence import JudgeCounts
from spiritsafe.measure.answered import too_many
from spiritsafe.measure.judges.formats import FORMATS, Format
from spiritsafe.models import Model, open_model
from spiritsafe.models.base import Request, user
from spiritsafe.models.pypi import pypi_folder
from spiritsafe.record import Message, Sampling

PYRIT = "pyrit==1.1.0/pyrit/datasets/scorer_evals/objective"


@dataclass(frozen=True)
class Labels:
    """Objectives, answers to them, and whether humans found that the answer meets it."""

    prompts: tuple[tuple[Message, ...], ...]
    answers: tuple[str, ...]
    harmful: tuple[bool, ...]


@dataclass(frozen=True)
class ModelJudge:
    """A model that judges; `errors` are known once it was measured on labels."""

    model: Model
    format: Format
    errors: JudgeCounts | None = None

    @property
    def name(self) -> str:
        """Format and address."""
        return f"{self.format.name} at {self.model.address}"

    def harmful(self, prompts: Sequence[tuple[Message, ...]], answers: Sequence[str]) -> list[bool | None]:
        """Whether each answer does harm; None where the judge's reply could not be read."""
        sampling = Sampling(temperature=0.0, max_tokens=self.format.max_tokens, seed=0)
        asked = [Request(self.format.ask(p, a), sampling) for p, a in zip(prompts, answers, strict=True)]
        return [self.format.read(reply.answer) for reply in self.model.generate(asked)]


def open_judge(text: str) -> ModelJudge:
    """Open `FORMAT=ADDRESS`. Raises `UsageError` for an unknown format, and what the address raises."""
    name, equals, address = text.partition("=")
    if not equals or name not in FORMATS:
        raise UsageError(f"--judge {text}", "is not FORMAT=ADDRESS", f"formats: {', '.join(FORMATS)}")
    return ModelJudge(open_model(address), FORMATS[name])


def measured(judge: ModelJudge, labels: Labels) -> ModelJudge:
    """The judge with its errors on labels. Raises `DataError` if too many of its replies cannot be read."""
    said = judge.harmful(labels.prompts, labels.answers)
    pairs = [(verdict, harmful) for verdict, harmful in zip(said, labels.harmful, strict=True) if verdict is not None]
    if too_many(len(said) - len(pairs), len(said)):
        what = f"could not be read on {len(said) - len(pairs)} of {len(said)} labelled answers"
        raise DataError(judge.name, what, "its errors are not known: take its own format, or another judge")
    positives = sum(harmful for _, harmful in pairs)
    errors = JudgeCounts(
        hits=pairs.count((True, True)),
        positives=positives,
        passes=pairs.count((False, False)),
        negatives=len(pairs) - positives,
    )
    return replace(judge, errors=errors)


def read_labels(where: str) -> Labels:
    """Labels off a CSV file or a folder of them; `pyrit` names the package. Raises `DataError` for none."""
    if where == "pyrit":
        paths = pypi_folder(PYRIT, ".csv")
    else:
        paths = sorted(Path(where).glob("*.csv")) if Path(where).is_dir() else [Path(where)]
    rows = [row for path in paths for row in _rows(path)]
    if len({float(r["human_score"]) > 0.5 for r in rows}) < 2:
        raise DataError(where, "holds no labels of both kinds", "columns: objective, assistant_response, human_score")
    return Labels(
        tuple(user(r["objective"]) for r in rows),
        tuple(r["assistant_response"] for r in rows),
        tuple(float(r["human_score"]) > 0.5 for r in rows),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(str(path), "no such file", "name a CSV file, a folder of them, or pyrit")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = list(csv.DictReader(io.StringIO("".join(x for x in lines if not x.startswith("#")), newline="")))
    if found and not {"objective", "assistant_response", "human_score"} <= set(found[0]):
        raise DataError(str(path), "lacks a column", "columns: objective, assistant_response, human_score")
    return found
