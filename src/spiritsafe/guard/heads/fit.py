"""`spiritsafe guard fit`: heads from named data sets, their limits, and a card of how often they err.

    limits      by three-fold cross-fitting on development rows
    held out    rows no fit saw, of sets whose other rows were learnt
    zero-shot   for each set with held-out rows: heads and limits from all other sets, measured on those rows

The same sets, files and seed give the same weights on one machine; across machines, to rounding.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiritsafe.errors import DataError, UsageError, writing
from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, corpus_of
from spiritsafe.guard.heads.figures import Figure, as_json, figures
from spiritsafe.guard.heads.heads import CARD, WEIGHTS
from spiritsafe.guard.heads.limits import choose
from spiritsafe.guard.heads.linear import crossed, fit_linear, rarity
from spiritsafe.guard.heads.sets import SETS, DataSet, trainable
from spiritsafe.record import bytes_digest, file_digest, write_atomic, write_json

NAMES = ("harmful", "injection", "abusive")
FOLDS = 3
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """A head's weights (1 << BITS), offset and limit."""

    weights: Array
    offset: float
    limit: float


def fit(
    names: Sequence[str],
    data: str,
    out: Path,
    *,
    seed: int,
    say: Say,
    measured: Sequence[str] = (),
    zero_shot: bool = True,
) -> Mapping[str, Any]:
    """Fit heads on the sets named, write weights and card into `out`, and give the card.

    Raises `UsageError` for a set that may not be trained on and `DataError` for files not at hand; sets that are
    only `measured` are left out where they are not.
    """
    learnt = trainable(names)
    sets = [*learnt, *_at_hand(measured, data, say)]
    corpus = corpus_of(sets, data, folds=FOLDS)
    say(f"{corpus.learnt.sum():,} rows to learn from, {corpus.held.sum():,} held out")
    told = [head for head in NAMES if {0, 1} <= set(corpus.says(head)[corpus.learnt].tolist())]
    if not told:
        raise UsageError(" ".join(names), "say of no head both yes and no", "add a set, such as xstest")
    heads = fit_heads(corpus, corpus.learnt, say, told)
    found = figures(corpus, _flags(corpus, heads), corpus.held, names, seed=seed)
    zero = _zero_shot(corpus, heads, names, seed, say) if zero_shot else []
    raw = _packed(heads)
    with writing(out, option="-o DIR"):
        out.mkdir(parents=True, exist_ok=True)
    card = _card(heads, found, zero, corpus, sets, data, seed, bytes_digest(raw))
    write_atomic(out / WEIGHTS, raw)
    write_json(out / CARD, card)
    return card


def fit_heads(corpus: Corpus, rows: Bools, say: Say, only: Sequence[str]) -> dict[str, Fitted]:
    """Heads and their limits from the rows given."""
    idf, heads = rarity(corpus), {}
    for head in only:
        limit = choose(corpus, head, crossed(corpus, head, idf, rows), rows)
        weights, offset = fit_linear(corpus, head, rows, idf)
        heads[head] = Fitted(weights.astype(np.float16).astype(float), offset, limit)
        say(f"{head}: limit {limit:+.2f}")
    return heads


def _at_hand(measured: Sequence[str], data: str, say: Say) -> list[DataSet]:
    found = []
    for each in (SETS[name] for name in measured):
        try:
            each.paths(data)
        except DataError as error:
            say(f"not measured: {error}")
        else:
            found.append(each)
    return found


def _flags(corpus: Corpus, heads: Mapping[str, Fitted]) -> dict[str, Bools]:
    return {
        name: corpus.highest(corpus.windows @ head.weights) + head.offset >= head.limit for name, head in heads.items()
    }


def _zero_shot(corpus: Corpus, heads: Mapping[str, Fitted], names: Sequence[str], seed: int, say: Say) -> list[Figure]:
    found: list[Figure] = []
    for name in names:
        own = corpus.source == name
        if not (own & corpus.held).any():
            continue
        say(f"without {name}")
        saying = [head for head in heads if (corpus.says(head)[own] >= 0).any()]
        if any(set(corpus.says(head)[corpus.learnt & ~own].tolist()) < {0, 1} for head in saying):
            continue
        others = fit_heads(corpus, corpus.learnt & ~own, lambda _: None, saying)
        found += [
            each
            for each in figures(corpus, _flags(corpus, {**heads, **others}), corpus.held & own, (), seed=seed)
            if each.case == name
        ]
    return found


def _packed(heads: Mapping[str, Fitted]) -> bytes:
    file = io.BytesIO()
    linear = np.stack([head.weights for head in heads.values()], axis=1).astype(np.float16)
    np.savez_compressed(file, linear=linear, offsets=np.array([h.offset for h in heads.values()], np.float32))
    return file.getvalue()


def _card(
    heads: Mapping[str, Fitted], found: Sequence[Figure], zero: Sequence[Figure], corpus: Corpus,
    sets: Sequence[DataSet], data: str, seed: int, digest: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "version": 1,
        "name": "spiritsafe guard heads",
        "heads": {name: {"limit": head.limit} for name, head in heads.items()},
        "weights_sha256": digest,
        "seed": seed,
        "sets": [_set_card(each, corpus, data) for each in sets],
        "held_out": as_json(found),
        "zero_shot": as_json(zero),
    }


def _set_card(each: DataSet, corpus: Corpus, data: str) -> dict[str, Any]:
    own = corpus.source == each.name
    return {
        "name": each.name,
        "licence": each.licence,
        "rows": int(own.sum()),
        "learnt": int((own & corpus.learnt).sum()),
        "held_out": int((own & corpus.held).sum()),
        "sha256": {path.name: file_digest(path) for path in each.paths(data)}
        if len(each.files) < 9 and not each.files[0].endswith("/")
        else {},
    }
