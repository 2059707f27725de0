"""The rows of data sets side by side, as a head sees them: folded, hashed, split into what may be learnt and what not.

A row that is held out is never learnt from, nor is any other row whose folded text equals one that is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.readers import Row
from spiritsafe.guard.heads.sets import DataSet
from spiritsafe.guard.normal import fold, normalise

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """Rows (N) of named sets: `held` rows are for measuring, `learnt` ones for fitting; `parts` are folds by hash.

    `windows` (V, WIDTH) has a row for each window of a text, `of_window` (V) says of which.
    """

    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    source: NDArray[np.str_]
    lang: NDArray[np.str_]
    held: Bools
    learnt: Bools
    parts: Ints
    windows: Any
    of_window: Ints

    @cached_property
    def of_set(self) -> dict[str, Bools]:
        """Which rows are of each set."""
        return {str(name): self.source == name for name in dict.fromkeys(self.source.tolist())}

    @cached_property
    def groups(self) -> Ints:
        """A number for each row, the same for rows of one group: translations, fillings of one template."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(row.group or row.text, len(numbers)) for row in self.rows])

    def says(self, head: str) -> Ints:
        """1 yes, 0 no, -1 not said, for each row."""
        return np.array([int(row.says.get(head, -1)) for row in self.rows])

    def highest(self, scores_V: Array) -> Array:
        """The highest score of any window of each row, (N)."""
        found = np.full(len(self.rows), -np.inf)
        np.maximum.at(found, self.of_window, scores_V)
        return found


def corpus_of(sets: Sequence[DataSet], data: str, *, folds: int) -> Corpus:
    """All rows of the sets. Raises `DataError` where a file is not at hand."""
    named = [(each, row) for each in sets for row in each.rows(data)]
    rows = tuple(row for _, row in named)
    texts = tuple(fold(normalise(row.text)) for row in rows)
    held = np.array([each.is_held(row) for each, row in named])
    unseen = {text for text, kept in zip(texts, held, strict=True) if kept}
    learnt = np.array(
        [bool(each.held != "all" and text not in unseen) for (each, _), text in zip(named, texts, strict=True)]
    )
    windows, of_window = _windows(texts)
    return Corpus(
        rows, texts, np.array([each.name for each, _ in named]), np.array([row.lang for row in rows]),
        held, learnt & ~held, np.array([_part(row, folds) for row in rows]), windows, of_window,
    )  # fmt: skip


def _part(row: Row, folds: int) -> int:
    return hashlib.sha256(f"fold {row.group or row.text}".encode()).digest()[0] % folds


def _windows(texts: Sequence[str]) -> tuple[Any, Ints]:
    from scipy.sparse import csr_matrix

    found = [(number, window) for number, text in enumerate(texts) for window in ngrams.buckets(text)]
    ends = np.cumsum([0, *(len(window) for _, window in found)])
    values = np.concatenate([np.full(len(window), max(1, len(window)) ** -0.5, np.float32) for _, window in found])
    columns = np.concatenate([window for _, window in found])
    matrix = csr_matrix((values, columns, ends), shape=(len(found), ngrams.WIDTH))
    return matrix, np.array([number for number, _ in found])
