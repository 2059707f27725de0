"""Labelled answers side by side, as the control of answers sees them, and heads fitted to some of them.

A row is scored by heads that saw neither its question nor anything its writer wrote (XSTest), nor anything of its set
or relations (the others). So is its question, by request heads without its fold.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.answers import asked_of, question_parts, told_of
from spiritsafe.guard.heads.answers_sets import Pair, PairSet
from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints
from spiritsafe.guard.heads.dual import separated
from spiritsafe.guard.heads.linear import COST, PASSES, fit_linear, rarity
from spiritsafe.guard.heads.sets import FOLDS
from spiritsafe.guard.normal import fold, normalise

Say = Callable[[str], None]
Linear = tuple[Array, float]
Asking = tuple[Linear, Linear]  # the heads `harmful` and `injection`
PARTS = 5  # of the questions of a set by several writers
SHIPPED = -1  # in place of a fold's number: a head that may have seen all


@dataclass(frozen=True)
class Answers:
    """Pairs (N) of named sets; `windows` (V, WIDTH) has a row for each window of an answer, `of_window` says of which.

    `asked` (N) and `requests` (V) are scores of questions and windows by request heads that did not see them.
    """

    pairs: tuple[Pair, ...]
    source: NDArray[np.str_]
    windows: Any
    of_window: Ints
    asked: Array
    requests: Array

    @property
    def did_harm(self) -> Ints:
        """1 yes, 0 no, -1 not said, for each row."""
        return np.array([-1 if pair.did_harm is None else int(pair.did_harm) for pair in self.pairs])

    @property
    def declines(self) -> Ints:
        """1 yes, 0 no, -1 not said, for each row."""
        return np.array([-1 if pair.declines is None else int(pair.declines) for pair in self.pairs])

    @property
    def counts(self) -> Ints:
        """The number of windows of each row."""
        return np.bincount(self.of_window, minlength=len(self.pairs))

    def told(self, harms_V: Array, declines_V: Array) -> Array:
        """What each answer tells (N): its highest window."""
        found = np.full(len(self.pairs), -np.inf)
        np.maximum.at(found, self.of_window, told_of(np.stack([self.requests, harms_V, declines_V], 1)))
        return found


def answers_of(sets: Sequence[PairSet], data: str, asking: Mapping[int, Asking]) -> Answers:
    """All pairs of the sets, with scores by the request heads of their folds (`asking`). Raises `DataError`."""
    named = [(each, pair) for each in sets for pair in each.pairs(data) if pair.answer.strip()]
    texts = [fold(normalise(pair.answer)) for _, pair in named]
    read = [(i, window) for i, text in enumerate(texts) for window in ngrams.buckets(text)]
    of_window = np.array([i for i, _ in read])
    windows = _matrix([window for _, window in read])
    folds = np.array([fold_of(each) for each, _ in named])
    asked = np.full(len(named), -9.0)  # of a row without a question: below every limit
    requests = np.zeros(len(of_window))
    for number in np.unique(folds):
        (weights, offset), _ = asking[int(number)]
        mine = folds[of_window] == number
        requests[mine] = windows[mine] @ weights + offset
        for i in (i for i in np.flatnonzero(folds == number) if named[i][1].question.strip()):
            asked[i] = _asked(named[i][1].question, asking[int(number)])
    source = np.array([each.name for each, _ in named])
    return Answers(tuple(pair for _, pair in named), source, windows, of_window, asked, requests)


def fold_of(each: PairSet) -> int:
    """The fold of the sets that a set's questions are related to."""
    return next((number for number, names in enumerate(FOLDS) if each.asked_in in names), SHIPPED)


def request_heads(corpus: Corpus, folds: Sequence[int], say: Say) -> dict[int, Asking]:
    """The heads of requests and of attacks without each of some folds."""
    idf = rarity(corpus, corpus.learnt)
    found = {}
    for number in folds:
        say(f"fitting harmful and injection without fold {number}")
        rows = corpus.learnt & (corpus.parts != number)
        harmful, injection = (
            fit_linear(corpus, head, rows & (corpus.says(head) >= 0), idf) for head in ("harmful", "injection")
        )
        found[number] = harmful, injection
    return found


def fit_two(answers: Answers, rows: Bools) -> tuple[Linear, Linear]:
    """The heads of what did harm and of what declines, from those of the rows that say yes or no."""
    says = answers.did_harm
    harms = _fit(answers, rows & (says >= 0), says, _row_weights(answers, rows, says))
    says = answers.declines
    return harms, _fit(answers, rows & (says >= 0), says, np.ones(len(says)))


def never_seen(answers: Answers, learnt: Sequence[PairSet], say: Say) -> Array:
    """What each answer (N) tells by heads that saw neither its question, its writer nor its relations."""
    harms = np.zeros(len(answers.of_window))
    declines = np.zeros(len(answers.of_window))
    for left_out, seen in _splits(answers, learnt, say):
        (weights, offset), (others, other) = fit_two(answers, seen)
        mine = left_out[answers.of_window]
        harms[mine] = answers.windows[mine] @ weights + offset
        declines[mine] = answers.windows[mine] @ others + other
    return answers.told(harms, declines)


def _splits(answers: Answers, learnt: Sequence[PairSet], say: Say) -> Iterator[tuple[Bools, Bools]]:
    """Rows left out with those that may be learnt from for them."""
    writers = np.array([pair.writer for pair in answers.pairs])
    parts = np.array([hashlib.sha256(f"part {p.group}".encode()).digest()[0] % PARTS for p in answers.pairs])
    families: dict[str, list[str]] = {}
    for each in learnt:
        families.setdefault(each.asked_in or each.name, []).append(each.name)
    for names in families.values():
        own = np.isin(answers.source, names)
        say(f"leaving out {', '.join(names)}")
        if len(names) > 1 or names != ["xstest answers"]:
            yield own, ~own
            continue
        for writer in np.unique(writers[own]):
            for part in range(PARTS):
                here = (writers == writer, parts == part)
                yield own & here[0] & here[1], ~(own & (here[0] | here[1]))


def _fit(answers: Answers, rows: Bools, says: Ints, weights_N: Array) -> Linear:
    window = rows[answers.of_window]
    mine = answers.windows[window]
    numbers = answers.of_window[window]
    count = np.bincount(mine.indices, minlength=mine.shape[1])
    idf = np.where(count > 1, np.log((1 + mine.shape[0]) / (1 + count)), 0.0)
    weights = weights_N[numbers]
    for side in (0, 1):  # yes and no count alike
        own = says[numbers] == side
        weights[own] *= 0.5 * len(own) / weights[own].sum()
    scaled = mine.multiply(idf.astype(np.float32)).tocsr()
    found = separated(scaled, says[numbers] == 1, weights, cost=COST, passes=PASSES)
    return found[:-1] * idf, float(found[-1])


def _row_weights(answers: Answers, rows: Bools, says: Ints) -> Array:
    """A set's yes and no each count with the root of their number."""
    weights = np.ones(len(says))
    for name in np.unique(answers.source[rows]):
        for side in (0, 1):
            own = rows & (answers.source == name) & (says == side)
            weights[own] = max(1, own.sum()) ** -0.5
    return weights


def _asked(question: str, asking: Asking) -> float:
    folded = fold(normalise(question))
    found = [window for part in question_parts(question, [folded]) for window in ngrams.buckets(part)]
    parts = _matrix(found)
    requests, attacks = (parts @ weights + offset for weights, offset in asking)
    return asked_of(requests, attacks)


def _matrix(found: Sequence[NDArray[np.int32]]) -> Any:
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *map(len, found)])
    values = np.concatenate([np.full(len(window), max(1, len(window)) ** -0.5, np.float32) for window in found])
    return csr_matrix((values, np.concatenate(found), ends), shape=(len(found), ngrams.WIDTH))
