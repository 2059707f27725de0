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
from spiritsafe.guard.heads.pieces import Span, pieces
from spiritsafe.guard.heads.readers import ANSWER, FIRST, LATER, Row
from spiritsafe.guard.heads.sets import FOLDS, DataSet
from spiritsafe.guard.normal import fold, normalise

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """Rows (N) of named sets: `held` rows are for measuring, `learnt` ones for fitting; `parts` are folds by hash.

    `windows` (V, WIDTH) has a row for each window of a text, and for each piece of one that has several (`pieces`, V,
    is the piece's number, -1 for a window); `of_window` (V) says of which text. `counts` (N) is how many pieces it has.
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
    pieces: Ints
    spans: tuple[tuple[Span, ...], ...]

    @cached_property
    def counts(self) -> Ints:
        """The number of pieces of each row."""
        return np.array([len(spans) for spans in self.spans])

    @cached_property
    def of_set(self) -> dict[str, Bools]:
        """Which rows are of each set."""
        return {str(name): self.source == name for name in dict.fromkeys(self.source.tolist())}

    @cached_property
    def groups(self) -> Ints:
        """A number for each row, the same for rows of one group: translations, fillings of one template."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(row.group or row.text, len(numbers)) for row in self.rows])

    @cached_property
    def is_first_half(self) -> Bools:
        """Half of the rows, by the hash of their group."""
        return np.array([hashlib.sha256(f"half {r.group or r.text}".encode()).digest()[0] < 128 for r in self.rows])

    @cached_property
    def asked(self) -> Bools:
        """Which rows people ask: all but the answers within conversations."""
        return np.array([row.part != ANSWER for row in self.rows])

    @cached_property
    def opens(self) -> Bools:
        """Which rows open a conversation."""
        return np.array([row.part == FIRST for row in self.rows])

    @cached_property
    def continues(self) -> Bools:
        """Which rows are questions of long conversations; those of one conversation are one group."""
        return np.array([row.part == LATER for row in self.rows])

    def says(self, head: str) -> Ints:
        """1 yes, 0 no, -1 not said, for each row."""
        return np.array([int(row.says.get(head, -1)) for row in self.rows])

    def highest(self, scores_V: Array) -> Array:
        """The highest score of any window of each row, (N)."""
        found = np.full(len(self.rows), -np.inf)
        np.maximum.at(found, self.of_window, scores_V)
        return found


def corpus_of(sets: Sequence[DataSet], data: str) -> Corpus:
    """All rows of the sets. Raises `DataError` where a file is not at hand."""
    named = [(each, row) for each in sets for row in each.rows(data)]
    rows = tuple(row for _, row in named)
    texts = tuple(fold(normalise(row.text)) for row in rows)
    held = np.array([each.is_held(row) for each, row in named])
    unseen = {text for text, kept in zip(texts, held, strict=True) if kept}
    learnt = np.array(
        [bool(each.held != "all" and text not in unseen) for (each, _), text in zip(named, texts, strict=True)]
    )
    spans = tuple(tuple(pieces(row.text, text)) for row, text in zip(rows, texts, strict=True))
    source = np.array([each.name for each, _ in named])
    return Corpus(
        rows, texts, source, np.array([row.lang for row in rows]), held, learnt & ~held, _parts(source, rows),
        *_windows(texts, spans), spans,
    )  # fmt: skip


def _parts(source: NDArray[np.str_], rows: Sequence[Row]) -> Ints:
    """The fold of each row: its set's where sets of several folds are at hand, else by its hash."""
    fold_of = {name: number for number, names in enumerate(FOLDS) for name in names}
    by_set = np.array([fold_of.get(str(name), -1) for name in source])
    by_hash = [hashlib.sha256(f"fold {row.group or row.text}".encode()).digest()[0] % len(FOLDS) for row in rows]
    enough = len(set(by_set.tolist()) - {-1}) == len(FOLDS)
    return np.where((by_set >= 0) & enough, by_set, np.array(by_hash, int))


def _windows(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> tuple[Any, Ints, Ints]:
    from scipy.sparse import csr_matrix

    found, numbers = [], []
    for number, (text, own) in enumerate(zip(texts, spans, strict=True)):
        read = [(-1, window) for window in ngrams.buckets(text)]
        if len(own) > 1:
            read += [(i, ngrams.buckets(text[start:end])[0]) for i, (start, end) in enumerate(own)]
        found += [(number, window) for _, window in read]
        numbers += [piece for piece, _ in read]
    ends = np.cumsum([0, *(len(window) for _, window in found)])
    values = np.concatenate([np.full(len(window), max(1, len(window)) ** -0.5, np.float32) for _, window in found])
    columns = np.concatenate([window for _, window in found])
    matrix = csr_matrix((values, columns, ends), shape=(len(found), ngrams.WIDTH))
    return matrix, np.array([number for number, _ in found]), np.array(numbers)
