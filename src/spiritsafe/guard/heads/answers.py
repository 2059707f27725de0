"""The fitted control of answers as it is used: a question and an answer in, what the answer gives away out.

    asked    how much the question is like a request for harm, or an attack: its highest reading, window or piece
    told     of each window of the answer: is like such a request + HARM * is like answers that did harm
             - a penalty if it declines; the highest window counts, so a refusal at the beginning hides nothing
    flagged  asked + told reaches the limit `pair`, or told reaches `alone`, whatever was asked

A beginning of an answer is scored as an answer is. Limits are by the number of windows. The folder holds
`answers.npz` (weights of four heads over the n-grams of `ngrams`) and its card; it needs no other heads.
"""

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import DataError
from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.heads import Stamp, folder_of
from spiritsafe.guard.heads.pieces import Span, pieces, place
from spiritsafe.record import bytes_digest, read_json

WEIGHTS, CARD = "answers.npz", "answers.json"
VERSION = 1
ATTACK = 0.9  # the limit of `injection` lies about so far above that of `harmful`
HEADS = ("requests", "harms", "declines", "attacks")
COUNTS = (1, 4, 7)  # windows from which on a limit holds: about 1,500 and 2,700 characters
HARM = 0.5  # answers that did harm are few and of few kinds; requests are many
# A refusal costs its score what nothing makes up for; at -0.1 the head is not yet sure of one, and little is taken off.
STEEP, SURE = 6.0, -0.1
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Told:
    """What the control finds in one answer: `score` reached `limit`; the characters it rests on most."""

    score: float
    limit: float
    span: Span

    @property
    def flagged(self) -> bool:
        """Whether the answer is not to be given."""
        return self.score >= self.limit


@dataclass(frozen=True)
class Said:
    """One answer as it is read, with its question: texts as they came, each with its folded readings."""

    asked: Sequence[tuple[str, Sequence[str]]]
    answer: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class AnswerHeads:
    """Linear heads (`HEADS`) and the limits `pair` and `alone`, each for the numbers of windows in `COUNTS`."""

    linear: ngrams.Weights
    offsets: NDArray[np.float32]
    limits: Mapping[str, Sequence[float]]
    card: Mapping[str, Any]
    digest: str

    def score(self, said: Sequence[Said], *, pair: float | None = None, alone: float | None = None) -> list[Told]:
        """What each answer gives away, against the limits of the card or those given."""
        batch: list[str] = []
        read = []
        for each in said:
            asked = [part for text, folds in each.asked for part in question_parts(text, folds)]
            spans = [(text, fold, span) for text, folds in each.answer for fold in folds for span in windows(fold)]
            read.append((len(asked), spans))
            batch += [*asked, *(fold[a:b] for _, fold, (a, b) in spans)]
        scores = ngrams.scores(batch, self.linear) + self.offsets if batch else np.zeros((0, len(HEADS)))
        found = []
        for count, spans in read:
            of_question = asked_of(scores[:count, 0], scores[:count, 3])
            of_answer = told_of(scores[count : count + len(spans)])
            scores = scores[count + len(spans) :]
            found.append(self._told(of_question, of_answer, spans, {"pair": pair, "alone": alone}))
        return found

    def declines(self, folded: Sequence[str]) -> list[bool]:
        """Whether each folded text declines, in one of its windows at least."""
        parts = [[text[start:end] for start, end in windows(text)] for text in folded]
        batch = [part for each in parts for part in each]
        column = HEADS.index("declines")
        scores = ngrams.scores(batch, self.linear)[:, column] + self.offsets[column] if batch else np.zeros(0)
        ends = np.cumsum([len(each) for each in parts])
        return [bool((of_text >= SURE).any()) for of_text in np.split(scores, ends[:-1])] if parts else []

    def _told(
        self,
        asked: float,
        told_W: Array,
        spans: Sequence[tuple[str, str, Span]],
        given: Mapping[str, float | None],
    ) -> Told:
        """The rule whose limit is passed by more, or missed by less."""
        if not len(told_W):
            return Told(-np.inf, np.inf, (0, 0))
        top = int(told_W.argmax())
        text, fold, span = spans[top]
        count = sum(1 for _, other, _ in spans if other == fold)
        told = float(told_W[top])
        rules = []
        for name, score in (("pair", asked + told), ("alone", told)):
            own = given[name]
            limit = self.limits[name][bisect_right(COUNTS, count) - 1] if own is None else own
            rules.append((score, limit))
        score, limit = max(rules, key=lambda rule: rule[0] - rule[1])
        return Told(score, limit, place(text, fold, span))


def asked_of(requests_P: NDArray[Any], attacks_P: NDArray[Any]) -> float:
    """What a question asks for, from the scores of its parts as a request and as an attack."""
    return float(max(requests_P.max(initial=-np.inf), attacks_P.max(initial=-np.inf) - ATTACK))


def told_of(scores_WH: NDArray[Any]) -> Array:
    """What each window tells (W), from its scores by each of `HEADS`."""
    requests, harms, declines = np.asarray(scores_WH, float)[:, :3].T
    return np.asarray(requests + HARM * harms - np.logaddexp(0.0, STEEP * (declines - SURE)))


def question_parts(text: str, folds: Sequence[str]) -> list[str]:
    """What is read of a question: each reading, and the pieces of the first."""
    spans = pieces(text, folds[0])
    return [*folds, *(folds[0][a:b] for a, b in spans if len(spans) > 1)]


def windows(folded: str) -> list[Span]:
    """Where the windows of a folded answer begin and end: those of `ngrams`; none of an empty one."""
    tokens = [found.span() for found in ngrams.TOKENS.finditer(folded)]
    if not tokens:
        return []
    last = max(0, -(-(len(tokens) - ngrams.WINDOW) // ngrams.STEP))
    starts = [i * ngrams.STEP for i in range(last + 1)]
    return [(tokens[i][0], tokens[min(i + ngrams.WINDOW, len(tokens)) - 1][1]) for i in starts]


def open_answers(source: str) -> AnswerHeads:
    """The control of answers of a folder, or the one shipped; of a changed folder the new one.

    Raises `DataError` where it holds none, or where card and weights do not belong together.
    """
    return _opened(source, stamp_of(source))


def stamp_of(source: str) -> Stamp:
    """What changes when a folder's control of answers does."""
    files = [folder_of(source) / name for name in (WEIGHTS, CARD)]
    return tuple((f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.is_file())


@lru_cache(maxsize=4)
def _opened(source: str, stamp: Stamp) -> AnswerHeads:
    folder: Path = folder_of(source)
    hint = "write one: spiritsafe guard fit-answers -o DIR"
    if not (folder / WEIGHTS).is_file() or not (folder / CARD).is_file():
        raise DataError(str(folder), "holds no control of answers", hint)
    raw = (folder / WEIGHTS).read_bytes()
    card = read_json(folder / CARD)
    digest = bytes_digest(raw)
    if digest != card["weights_sha256"]:
        raise DataError(str(folder), f"the card is of other weights ({card['weights_sha256'][:12]}, not {digest[:12]})")
    with np.load(io.BytesIO(raw)) as held:
        if card["version"] != VERSION or held["linear"].shape != (ngrams.WIDTH, len(HEADS)):
            raise DataError(str(folder), "holds a control of answers of another form", hint)
        linear = ngrams.packed(held["linear"].astype(np.float32))
        offsets = held["offsets"].astype(np.float32)
    ngrams.get_ready()
    return AnswerHeads(linear, offsets, card["limits"], card, digest)
