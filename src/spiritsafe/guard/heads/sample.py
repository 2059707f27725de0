"""The rows that encoder heads are fitted and measured on, and their vectors: some of each set, by hash.

Encoders are slow, so no set gives more than `CAP` rows (other languages: `CAP_OTHER`) to learn from and as many to
measure; English rows that teach the other languages' heads are `TEACHING` a set. Vectors are kept in the user's cache,
by a digest of the texts.
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
from spiritsafe.guard.heads.second import vectors
from spiritsafe.guard.normal import normalise
from spiritsafe.record import digest_of

CAP, CAP_OTHER, TEACHING = 1500, 1500, 300
CHUNK = 256
KEPT_AS = {True: "minilm-8bit", False: "e5-8bit-256"}  # other vectors of the same texts are not these


@dataclass(frozen=True)
class Sample:
    """Rows (M) of a corpus that one encoder reads, by number, with its vectors (M, 384) and the tongue of each."""

    rows: Ints
    vectors: Array
    tongues: NDArray[np.str_]


def sample_of(corpus: Corpus, *, english: bool) -> Sample:
    """The English rows for the English encoder; for the other one the rest, and English ones that teach it."""
    tongues = np.array([tongue_of(text) for text in corpus.texts])
    is_english = tongues == "english"
    ranks = np.array([int(hashlib.sha256(row.text.encode()).hexdigest()[:12], 16) for row in corpus.rows])
    picked: list[NDArray[np.int64]] = []
    for mask in corpus.of_set.values():
        for part in (corpus.learnt, corpus.held):
            own = mask & part
            picked.append(_some(own & (is_english == english), corpus, ranks, CAP if english else CAP_OTHER))
            if not english and part is corpus.learnt:
                picked.append(_some(own & is_english, corpus, ranks, TEACHING))
    rows = np.sort(np.concatenate(picked))
    texts = [normalise(corpus.rows[i].text) for i in rows]
    return Sample(rows, _kept(texts, english=english), tongues[rows])


def _some(own: Bools, corpus: Corpus, ranks: Ints, cap: int) -> Ints:
    """At most `cap` rows, those that say yes to something and those that do not alike as far as there are."""
    yes = np.array([any(row.says.values()) for row in corpus.rows]) & own
    no = own & ~yes
    half = max(cap // 2, cap - int(yes.sum())), max(cap // 2, cap - int(no.sum()))
    chosen = [np.flatnonzero(m)[np.argsort(ranks[m])[:num]] for m, num in ((no, half[0]), (yes, half[1]))]
    return np.concatenate(chosen)


def _kept(texts: Sequence[str], *, english: bool) -> Array:
    kept = cache_dir() / "vectors" / f"{KEPT_AS[english]}-{digest_of(list(texts))[:16]}.npy"
    if not kept.exists():
        parts = [vectors(texts[i : i + CHUNK], is_english=english) for i in range(0, len(texts), CHUNK)]
        with writing(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, np.concatenate(parts).astype(np.float32))
    found: Array = np.load(kept).astype(float)
    return found
