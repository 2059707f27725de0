"""What the fitted heads of one side find in texts: which head, with which score against which limit, and where.

A text's score is the highest of its windows and its pieces, its limit that of texts of as many pieces. With an encoder,
its heads decide on the parts that they read; on what they did not read the linear heads decide.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads.heads import Heads, open_heads
from spiritsafe.guard.heads.language import Tongue, tongue_of
from spiritsafe.guard.heads.pieces import Span, pieces, place
from spiritsafe.guard.heads.second import MOST_READ, WHOLE, Second
from spiritsafe.guard.normal import normalise

Stage = Literal["linear", "encoder"]
Floats = NDArray[np.float32]


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
    """All that the heads find in one text, the last stage that looked, and what the encoder should have read."""

    hits: tuple[Hit, ...]
    stage: Stage
    unread: tuple[Span, ...] = ()


NOTHING = Scored((), "linear")
_WORD = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True)
class _Read:
    """A text as the heads read it: folded, where its pieces are, and scores of the whole, of what it hides, of pieces.

    A text of one piece has no pieces beside the whole.
    """

    text: str
    folded: str
    spans: Sequence[Span]
    whole: Floats
    hidden: Floats
    parts: Floats

    @property
    def count(self) -> int:
        return len(self.spans)

    @property
    def highest(self) -> Floats:
        found: Floats = np.concatenate([self.whole[None], self.hidden, self.parts]).max(0)
        return found

    def span_of(self, column: int) -> Span:
        """The characters of the text that a head scores highest."""
        at = int(self.parts[:, column].argmax()) if len(self.parts) else 0
        return place(self.text, self.folded, self.spans[at])


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
        second = opened.second if self._encoder else None
        reads, near = _read(opened, texts, readings, self._lowest(opened))
        # Heads know words: a lone question mark is like whatever ended in one.
        worded = [any(map(_WORD.search, folds)) for folds in readings]
        if second:
            both = zip(reads, worded, strict=True)
            return [self._with_encoder(opened, second, read) if says else NOTHING for read, says in both]
        each = zip(reads, near, worded, strict=True)
        return [self._linear(opened, read) if is_near and says else NOTHING for read, is_near, says in each]

    def _lowest(self, opened: Heads) -> Floats:
        """Below these scores (H) no head of the first stage finds anything."""
        own = {
            name: min(*kinds["limit"], *kinds.get("beside", kinds["limit"])) for name, kinds in opened.limits.items()
        }
        given = {name: limit for name, limit in self._limits.items() if limit is not None}
        return np.array([given.get(name, own[name]) for name in opened.names], np.float32)

    def _linear(self, opened: Heads, read: _Read) -> Scored:
        return Scored(self._above(opened, "limit", read.highest, opened.names, read), "linear")

    def _with_encoder(self, opened: Heads, encoder: Second, read: _Read) -> Scored:
        tongue = tongue_of(read.folded)
        second = opened.by_encoder
        found = self._above(opened, "limit", read.highest, [n for n in self._limits if n not in second], read)
        spans, firsts = _parts(read)
        asked = _asked(opened, firsts, tongue)
        chosen, unread = asked[:MOST_READ], asked[MOST_READ:]
        by_linear = np.concatenate([read.hidden, firsts[unread]])
        if len(by_linear):
            found += self._above(opened, "limit", by_linear.max(0), second, read)
        if not chosen:
            return Scored(found, "linear")
        places = [place(read.text, read.folded, spans[i]) for i in chosen]
        shown = [normalise(read.text[start:end]) for start, end in places]
        scores = encoder.scores(shown, firsts[chosen].astype(float), is_english=tongue == "english")
        found += self._above(opened, tongue, scores.max(0), second, read, [places[i] for i in scores.argmax(0)])
        return Scored(found, "encoder", tuple(place(read.text, read.folded, spans[i]) for i in unread))

    def _above(
        self, opened: Heads, kind: str, scores: Floats, names: Sequence[str], read: _Read, spans: Sequence[Span] = ()
    ) -> tuple[Hit, ...]:
        stage: Stage = "linear" if kind == "limit" else "encoder"
        found = []
        for name, given in ((name, given) for name, given in self._limits.items() if name in names):
            column = opened.names.index(name)
            score = float(scores[column])
            limit = opened.limit_of(name, kind, scores.tolist(), read.count) if given is None else given
            if score >= limit:
                found.append(Hit(name, stage, score, limit, spans[column] if spans else read.span_of(column)))
        return tuple(found)


def _read(
    opened: Heads, texts: Sequence[str], readings: Sequence[Sequence[str]], lowest: Floats
) -> tuple[list[_Read], list[bool]]:
    """Many texts, scored in one call, and which of them have a score of at least the lowest that any head flags."""
    spans = [pieces(text, folds[0]) for text, folds in zip(texts, readings, strict=True)]
    batch: list[str] = []
    starts = []
    for folds, own in zip(readings, spans, strict=True):
        starts.append(len(batch))
        batch += folds
        if len(own) > 1:
            batch += [folds[0][start:end] for start, end in own]
    scores = opened.scores_of(batch)
    highest: Floats = np.maximum.reduceat(scores, starts, axis=0)
    near = [bool(each) for each in np.any(highest >= lowest, axis=1)]
    found = []
    for text, folds, own, at, end in zip(texts, readings, spans, starts, [*starts[1:], len(batch)], strict=True):
        hidden = at + len(folds)
        found.append(_Read(text, folds[0], own, scores[at], scores[at + 1 : hidden], scores[hidden:end]))
    return found, near


def _parts(read: _Read) -> tuple[list[Span], Floats]:
    """What an encoder may read of a text, with scores: the whole if it is short, and its pieces if it has several."""
    is_short = read.count == 1 or len(read.text) <= WHOLE
    whole = [(0, len(read.folded))] if is_short else []
    own = list(read.spans) if read.count > 1 else []
    return [*whole, *own], np.concatenate([read.whole[None][: len(whole)], read.parts])


def _asked(opened: Heads, firsts: Floats, tongue: Tongue) -> list[int]:
    """The parts that the encoder is asked about, the highest by the first stage first; English ones if not clear."""
    columns = [opened.names.index(name) for name in opened.by_encoder]
    clear = np.array([opened.clear_of(name) for name in opened.by_encoder])
    over = (firsts[:, columns] - clear).max(1)
    order = np.argsort(-over, kind="stable").tolist()
    return [i for i in order if tongue != "english" or over[i] >= 0]
