"""The parts of texts that encoder heads are fitted and measured on, and their vectors: some rows of each set, by hash.

Encoders are slow, so no set gives more than `CAP` rows (other languages: `CAP_OTHER`) to learn from and `HELD` to
measure; English rows that teach the other languages' heads are `TEACHING` a set. Of the real traffic that limits are
chosen on all later questions are read, and `CAP_TRAFFIC` first ones. Vectors are kept in the user's cache, by a digest
of their text, in a file named by what the encoder gives for `PROBE`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spiritsafe.cache import cache_dir
from spiritsafe.errors import writing
from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, Ints
from spiritsafe.guard.heads.language import tongue_of
from spiritsafe.guard.heads.limits import TRAFFIC, calibrating
from spiritsafe.guard.heads.pieces import place
from spiritsafe.guard.heads.second import MOST_READ, WHOLE, vectors
from spiritsafe.guard.normal import normalise
from spiritsafe.record import bytes_digest

CAP, CAP_OTHER, HELD, TEACHING = 300, 150, 100, 200
CAP_TRAFFIC = 2000
CHUNK = 512
# Two texts, one longer than any encoder reads: what another encoder, or other arithmetic, gives for them is different.
PROBE = ("The garden was quiet and the bread was warm.", "Brot und Käse, " * 100)


@dataclass(frozen=True)
class Sample:
    """Parts (M) that one encoder reads: of which row, which of its pieces (-1: all of it), vectors, and the tongue."""

    rows: Ints
    windows: Ints
    vectors: Array
    tongues: NDArray[np.str_]

    @property
    def is_whole(self) -> Bools:
        """Which parts are all of their text."""
        return self.windows < 0

    def is_read(self, corpus: Corpus) -> Bools:
        """Which parts are read when heads are used: of a text of many pieces, not its beginning."""
        short: Bools = np.array([len(row.text) <= WHOLE for row in corpus.rows]) | (corpus.counts == 1)
        read: Bools = ~self.is_whole | short[self.rows]
        return read

    def firsts(self, corpus: Corpus, scores_V: Array) -> Array:
        """First-stage scores (M) of the parts, from those of the windows."""
        whole = np.full(len(corpus.rows), -np.inf)
        own = corpus.pieces < 0
        np.maximum.at(whole, corpus.of_window[own], scores_V[own])
        return np.where(self.is_whole, whole[self.rows], scores_V[self.windows])


def sample_of(corpus: Corpus, scores_V: Array, *, english: bool) -> Sample:
    """The English rows for the English encoder; for the other one the rest, and English ones that teach it.

    Of a text with several pieces those are read that score highest.
    """
    tongues = np.array([tongue_of(text) for text in corpus.texts])
    is_english = tongues == "english"
    ranks = np.array([_rank(row.text) for row in corpus.rows])
    picked: list[NDArray[np.int64]] = []
    for name, every in corpus.of_set.items():
        mask = every & corpus.asked
        limiting = mask & calibrating(corpus) if name == TRAFFIC else np.zeros_like(mask)
        picked.append(np.flatnonzero(limiting & corpus.continues & (is_english == english)))
        picked.append(_some(limiting & corpus.opens & (is_english == english), corpus, ranks, CAP_TRAFFIC))
        mask &= ~limiting
        for part, cap in ((corpus.learnt, CAP if english else CAP_OTHER), (corpus.held, HELD)):
            picked.append(_some(mask & part & (is_english == english), corpus, ranks, cap))
            if not english and part is corpus.learnt:
                picked.append(_some(mask & part & is_english, corpus, ranks, TEACHING))
    rows = np.sort(np.concatenate(picked))
    parts = [part for i in rows.tolist() for part in _parts(corpus, i, scores_V)]
    numbers = np.array([number for number, _, _ in parts])
    windows = np.array([window for _, window, _ in parts])
    return Sample(numbers, windows, _kept([text for _, _, text in parts], english=english), tongues[numbers])


def _parts(corpus: Corpus, number: int, scores_V: Array) -> list[tuple[int, int, str]]:
    """What an encoder reads of a row: its number, the window (-1: the whole) and the text."""
    text = corpus.rows[number].text
    shown = normalise(text[: 8 * WHOLE])
    count = corpus.counts[number]
    found = [(number, -1, shown)] if count == 1 or len(shown) <= WHOLE or any(corpus.rows[number].says.values()) else []
    if count > 1:
        first = int(np.searchsorted(corpus.of_window, number))
        own = np.arange(first, int(np.searchsorted(corpus.of_window, number, side="right")))
        own = own[corpus.pieces[own] >= 0]
        for window in own[np.argsort(-scores_V[own], kind="stable")[:MOST_READ]].tolist():
            start, end = place(text, corpus.texts[number], corpus.spans[number][corpus.pieces[window]])
            found.append((number, window, normalise(text[start:end])))
    return found


def _rank(text: str) -> int:
    return int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12], 16)


def _some(own: Bools, corpus: Corpus, ranks: Ints, cap: int) -> Ints:
    """At most `cap` rows, those that say yes to something and those that do not alike as far as there are."""
    yes = np.array([any(row.says.values()) for row in corpus.rows]) & own
    no = own & ~yes
    half = max(cap // 2, cap - int(yes.sum())), max(cap // 2, cap - int(no.sum()))
    chosen = [np.flatnonzero(m)[np.argsort(ranks[m])[:num]] for m, num in ((no, half[0]), (yes, half[1]))]
    return np.concatenate(chosen)


def _kept(texts: Sequence[str], *, english: bool) -> Array:
    """Vectors (M, 384): what is not kept is encoded, and kept a chunk at a time."""
    probe = vectors(PROBE, is_english=english).astype(np.float32)
    kept = cache_dir() / "vectors" / f"{bytes_digest(probe.tobytes())[:16]}.npz"
    known: dict[int, NDArray[np.float32]] = {}
    if kept.exists():
        with np.load(kept) as held:
            known = dict(zip(held["keys"].tolist(), held["vectors"], strict=True))
    new = list({_rank(text): text for text in texts if _rank(text) not in known}.values())
    for first in range(0, len(new), CHUNK):
        chunk = new[first : first + CHUNK]
        found = vectors(chunk, is_english=english).astype(np.float32)
        known |= {_rank(text): vector for text, vector in zip(chunk, found, strict=True)}
        with writing(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
    return np.array([known[_rank(text)] for text in texts], float).reshape(len(texts), -1)
