"""What the fitted heads of one side find in texts: which head, with which score against which limit, and where.

The linear heads read every text, in windows. With an encoder, its heads read what the linear ones do not clear.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.heads import Heads, open_heads
from spiritsafe.guard.heads.language import tongue_of
from spiritsafe.guard.heads.pieces import Span, pieces, place
from spiritsafe.guard.heads.second import Second
from spiritsafe.guard.normal import normalise

Stage = Literal["linear", "encoder"]


@dataclass(frozen=True)
class Hit:
    """What a head finds in a text: a score of at least its limit, and the characters it rests on most."""

    head: str
    stage: Stage
    score: float
    limit: float
    span: Span


@dataclass(frozen=True)
class Scored:
    """All that the heads find in one text, and the last stage that looked."""

    hits: tuple[Hit, ...]
    stage: Stage


class Scorer:
    """The heads of one side of a policy, with the limits that it sets itself; the card's for the others."""

    def __init__(self, source: str, limits: Mapping[str, float | None], *, encoder: bool) -> None:
        self._limits = limits
        self._encoder = encoder
        self._opened = open_heads(source) if limits else None

    def __bool__(self) -> bool:
        return bool(self._limits)

    def score_texts(self, texts: Sequence[str], readings: Sequence[Sequence[str]]) -> list[Scored]:
        """What is found in each text with its readings (folded; the text itself first, then what it hides)."""
        opened = self._opened
        if opened is None or not texts:
            return []
        firsts = opened.scores_of(readings)
        second = opened.second if self._encoder else None
        scored = []
        for text, folds, scores in zip(texts, readings, firsts, strict=True):
            found = self._with_encoder(opened, second, text, folds, scores) if second else self._linear(opened, scores)
            scored.append(self._placed(opened, found, text, folds))
        return scored

    def _linear(self, opened: Heads, scores: NDArray[np.float32]) -> Scored:
        return Scored(tuple(self._above("linear", "limit", scores.tolist(), opened.names)), "linear")

    def _with_encoder(
        self, opened: Heads, encoder: Second, text: str, texts: Sequence[str], firsts: NDArray[np.float32]
    ) -> Scored:
        tongue = tongue_of(texts[0])
        first = firsts.tolist()
        second = opened.by_encoder
        found = self._above("linear", "limit", first, [name for name in self._limits if name not in second])
        clear = all(
            score < opened.limits[name]["clear"]
            for name, score in zip(opened.names, first, strict=True)
            if name in second
        )
        if tongue == "english" and clear:
            return Scored(tuple(found), "linear")
        hidden = opened.scores(texts[1:]).tolist() if len(texts) > 1 else [-math.inf] * len(first)
        if more := self._above("linear", "limit", hidden, second):
            return Scored((*found, *more), "linear")
        scores = encoder.scores(normalise(text), firsts.astype(float), is_english=tongue == "english")
        return Scored((*found, *self._above("encoder", tongue, scores.tolist(), second)), "encoder")

    def _above(self, stage: Stage, kind: str, scores: Sequence[float], names: Sequence[str]) -> list[Hit]:
        assert self._opened
        found = []
        for name, given in ((name, given) for name, given in self._limits.items() if name in names):
            score = scores[self._opened.names.index(name)]
            own = self._opened.limit_of(name, scores) if kind == "limit" else self._opened.limits[name][kind]
            limit = own if given is None else given
            if score >= limit:
                found.append(Hit(name, stage, score, limit, (0, 0)))
        return found

    def _placed(self, opened: Heads, found: Scored, text: str, folds: Sequence[str]) -> Scored:
        """The hits with the piece of the text that scores highest for each."""
        if not found.hits:
            return found
        spans = pieces(text, folds[0])
        scores = ngrams.scores([folds[0][start:end] for start, end in spans], opened.linear)
        best = {name: spans[int(scores[:, column].argmax())] for column, name in enumerate(opened.names)}
        hits = [Hit(h.head, h.stage, h.score, h.limit, place(text, folds[0], best[h.head])) for h in found.hits]
        return Scored(tuple(hits), found.stage)
