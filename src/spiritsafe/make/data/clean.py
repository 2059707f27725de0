"""Decontamination: which training items share n-grams with an evaluation set, and how much of the set they show.

An item of `n` tokens or more is hit by one n-gram of it (GPT-3's rule, arXiv 2005.14165, appendix C); a
shorter one where all its tokens occur in a row; a very short one only as a whole message, since anything may
contain "yes". Paraphrases and translations are not found.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np

from spiritsafe.checks.words import tokens
from spiritsafe.make.data.ngrams import I64, U64, Grams, Tokens, tokenise, wholes, windows
from spiritsafe.make.data.settings import CleanPart
from spiritsafe.record import Record

EXCERPT = 80

Rule = Literal["n-gram", "in a row", "message"]


class Hit(Record):
    """Training item `item` shows item `index` of an evaluation set.

    `overlap` is the share of the evaluation item's n-grams that occur in the training item; `shared` the first
    of them, as compared.
    """

    item: int
    evaluation: str
    index: int
    digest: str
    rule: Rule
    overlap: float
    shared: str


class Seen(Record):
    """The reverse view: how many of an evaluation set's items the training items show, and which.

    `unjudged` items have nothing of their own to compare: no token, or only the set's boilerplate.
    """

    evaluation: str
    items: int
    contaminated: int
    share: float
    unjudged: int
    boilerplate: int
    digests: tuple[str, ...]


class Clean(Record):
    """The training items that show evaluation items: each item's strongest hit of each set, in order."""

    hits: tuple[Hit, ...]
    seen: tuple[Seen, ...]

    @property
    def items(self) -> frozenset[int]:
        """Numbers of the training items to leave out."""
        return frozenset(hit.item for hit in self.hits)


def decontaminate(
    items: Sequence[Sequence[str]], evaluations: Mapping[str, Sequence[str]], settings: CleanPart
) -> Clean:
    """Compare training items, each a sequence of messages, with evaluation sets by name."""
    parts = [part for item in items for part in item]
    of_part = np.repeat(np.arange(len(items)), np.array([len(item) for item in items], np.int64))
    ours = _Ours(tokenise(parts), of_part)
    found = [_against(ours, name, texts, settings) for name, texts in evaluations.items()]
    strongest: dict[tuple[int, str], _Match] = {}
    for match in sorted((m for matches, _ in found for m in matches), key=lambda m: (m.item, -m.overlap, m.index)):
        strongest.setdefault((match.item, match.evaluation), match)
    hits = tuple(_hit(m, items[m.item], evaluations[m.evaluation][m.index], settings.ngram) for m in strongest.values())
    return Clean(hits=hits, seen=tuple(seen for _, seen in found))


@dataclass(frozen=True)
class _Ours:
    """The training messages' tokens, and the item each message belongs to."""

    tokens: Tokens
    of_part: I64

    def grams(self, n: int) -> Grams:
        found = windows(self.tokens, n)
        return Grams(found.hashes, self.of_part[found.owners])


@dataclass(frozen=True)
class _Match:
    item: int
    evaluation: str
    index: int
    rule: Rule
    overlap: float


def _against(ours: _Ours, name: str, texts: Sequence[str], settings: CleanPart) -> tuple[list[_Match], Seen]:
    theirs = tokenise(texts)
    grams, boilerplate = _own_grams(windows(theirs, settings.ngram), settings.common)
    sizes = np.bincount(grams.owners, minlength=len(texts))
    matches = [
        _Match(item, name, index, "n-gram", common / int(sizes[index]))
        for (item, index), common in _common(ours.grams(settings.ngram), grams).items()
    ]
    matches += _short(ours, name, theirs, settings)
    seen = sorted({m.index for m in matches})
    long = theirs.lengths >= settings.ngram
    return matches, Seen(
        evaluation=name,
        items=len(texts),
        contaminated=len(seen),
        share=len(seen) / len(texts) if texts else 0.0,
        unjudged=int(((sizes == 0) & long | (theirs.lengths == 0)).sum()),
        boilerplate=boilerplate,
        digests=tuple(_digest(texts[i]) for i in seen),
    )


def _own_grams(grams: Grams, common: int) -> tuple[Grams, int]:
    """Each item's set of n-grams without those of more than `common` items; and how many those are."""
    pairs = np.unique(np.stack([grams.hashes, grams.owners.astype(np.uint64)]), axis=1)
    _, number, times = np.unique(pairs[0], return_inverse=True, return_counts=True)
    own = times[number] <= common
    return Grams(pairs[0][own], pairs[1][own].astype(np.int64)), int((times > common).sum())


def _common(ours: Grams, theirs: Grams) -> Counter[tuple[int, int]]:
    """How many of an evaluation item's n-grams occur in a training item, for each pair that shares any."""
    first, last = (np.searchsorted(theirs.hashes, ours.hashes, side) for side in ("left", "right"))
    times = last - first
    starts = np.repeat(first - (np.cumsum(times) - times), times)
    at = starts + np.arange(len(starts))
    shared = np.unique(np.stack([np.repeat(ours.owners, times), at]), axis=1)
    return Counter(zip(shared[0].tolist(), theirs.owners[shared[1]].tolist(), strict=True))


def _short(ours: _Ours, name: str, theirs: Tokens, settings: CleanPart) -> list[_Match]:
    whole, matches = wholes(theirs, settings.ngram), []
    for n in np.unique(theirs.lengths[(theirs.lengths > 0) & (theirs.lengths < settings.ngram)]).tolist():
        rule: Rule = "in a row" if n >= settings.short else "message"
        grams = ours.grams(n) if n >= settings.short else _messages(ours, n)
        chosen = np.flatnonzero(theirs.lengths == n)
        order = np.argsort(whole[chosen], kind="stable")
        pairs = _common(grams, Grams(whole[chosen][order], chosen[order]))
        matches += [_Match(item, name, index, rule, 1.0) for item, index in pairs]
    return matches


def _messages(ours: _Ours, n: int) -> Grams:
    """The training messages of exactly `n` tokens."""
    exact = np.flatnonzero(ours.tokens.lengths == n)
    hashes: U64 = wholes(ours.tokens, n + 1)[exact]
    return Grams(hashes, ours.of_part[exact])


def _hit(match: _Match, item: Sequence[str], text: str, n: int) -> Hit:
    return Hit(
        item=match.item,
        evaluation=match.evaluation,
        index=match.index,
        digest=_digest(text),
        rule=match.rule,
        overlap=match.overlap,
        shared=_shared(item, text, n)[:EXCERPT],
    )


def _shared(item: Sequence[str], text: str, n: int) -> str:
    """The first n-gram of the training item that the evaluation item has too."""
    theirs = tokens(text)
    n = min(n, len(theirs))
    known = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
    for part in map(tokens, item):
        for i in range(len(part) - n + 1):
            if tuple(part[i : i + n]) in known:
                return " ".join(part[i : i + n])
    return ""


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
