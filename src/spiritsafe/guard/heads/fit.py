"""`spiritsafe guard fit`: heads from named data sets, their limits, and a card of how often they err.

    limits      by three-fold cross-fitting on development rows
    held out    rows no fit saw, of sets whose other rows were learnt
    zero-shot   for the sets that figures are named after: heads and limits from all others, measured on held-out rows

The same sets, files and seed give the same weights on one machine; across machines, to rounding.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiritsafe.errors import DataError, UsageError, writing
from spiritsafe.guard.heads.corpus import Array, Bools, Corpus, corpus_of
from spiritsafe.guard.heads.figures import Figure, as_json, figures
from spiritsafe.guard.heads.heads import CARD, WEIGHTS
from spiritsafe.guard.heads.limits import BESIDE, choose, clear_below
from spiritsafe.guard.heads.linear import crossed, fit_linear, rarity
from spiritsafe.guard.heads.sample import Sample, sample_of
from spiritsafe.guard.heads.second_fit import FIRST_ONLY, Firsts, SecondFit, fit_second, second_scores
from spiritsafe.guard.heads.sets import SETS, DataSet, trainable
from spiritsafe.record import bytes_digest, file_digest, write_atomic, write_json

NAMES = ("harmful", "injection", "abusive")
FOLDS = 3
ZERO_SHOT = (
    "s-labs", "harmbench", "ailuminate", "xstest", "openai-moderation", "hatecheck-de", "frr-multilingual", "mgsm",
    "ordinary", "bbh",
)  # fmt: skip
RELATED = {"frr": ("frr-multilingual",), "frr-multilingual": ("frr",), "mgsm": ("gsm8k",)}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """A head of the first stage: weights (WIDTH), offset, limit, and the score below which the second is not asked.

    `scores` (N) are those of rows learnt from by heads that did not see them, and of all others. `beside` is the limit
    for texts that `harmful` flags: an attack is framed around a harm.
    """

    weights: Array
    offset: float
    limit: float
    clear: float
    scores: Array
    beside: float | None = None


@dataclass(frozen=True)
class Samples:
    """The rows that the encoders read."""

    english: Sample
    other: Sample


def fit(
    names: Sequence[str],
    data: str,
    out: Path,
    *,
    seed: int,
    say: Say,
    measured: Sequence[str] = (),
    encoders: bool = False,
) -> Mapping[str, Any]:
    """Fit heads on the sets named, write weights and card into `out`, and give the card.

    Raises `UsageError` for a set that may not be trained on, `DataError` for files not at hand and `MissingExtra` where
    `encoders` are not installed; sets that are only `measured` are left out where they are not at hand.
    """
    learnt = trainable(names)
    sets = [*learnt, *_at_hand(measured, data, say)]
    corpus = corpus_of(sets, data, folds=FOLDS)
    say(f"{corpus.learnt.sum():,} rows to learn from, {corpus.held.sum():,} held out")
    told = [head for head in NAMES if {0, 1} <= set(corpus.says(head)[corpus.learnt].tolist())]
    if not told:
        raise UsageError(" ".join(names), "say of no head both yes and no", "add a set, such as xstest")
    samples = _samples(corpus, say) if encoders else None
    heads = fit_heads(corpus, corpus.learnt, told)
    second = fit_second(corpus, samples.english, samples.other, _firsts(heads), corpus.learnt) if samples else None
    found = {"linear": figures(corpus, flagged(heads), corpus.held, names, seed=seed)}
    if samples and second:
        flags, read = flagged_by_encoder(corpus, samples, heads, second)
        found["encoder"] = figures(corpus, flags, corpus.held & read, names, seed=seed)
    zero = _zero_shot(corpus, heads, samples, second, names, seed, say)
    raw = _packed(heads, second)
    card = _card(heads, second, found, zero) | {
        "weights_sha256": bytes_digest(raw),
        "seed": seed,
        "sets": [_set_card(each, corpus, data) for each in sets],
    }
    with writing(out, option="-o DIR"):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / WEIGHTS, raw)
    write_json(out / CARD, card)
    return card


def fit_heads(corpus: Corpus, rows: Bools, only: Sequence[str]) -> dict[str, Fitted]:
    """Heads of the first stage and their limits from the rows given."""
    idf, heads = rarity(corpus, rows), {}
    for head in only:
        scores = crossed(corpus, head, idf, rows)
        limit, clear = choose(corpus, head, scores, rows), clear_below(corpus, head, scores, rows)
        weights, offset = fit_linear(corpus, head, rows, idf)
        weights = weights.astype(np.float16).astype(float)
        final = corpus.highest(corpus.windows @ weights) + offset
        heads[head] = Fitted(weights, offset, limit, clear, np.where(rows, scores, final))
    if {"harmful", "injection"} <= set(heads):
        heads["injection"] = _beside(corpus, heads["injection"], heads["harmful"], rows)
    return heads


def _beside(corpus: Corpus, attack: Fitted, harm: Fitted, rows: Bools) -> Fitted:
    """An injection head with its limit for texts that are found harmful; what its own limit flags stays flagged."""
    low, high = -9.0, 9.0
    scores = np.where(attack.scores >= attack.limit, high, np.where(harm.scores >= harm.limit, attack.scores, low))
    return replace(attack, beside=min(attack.limit, choose(corpus, "injection", scores, rows, BESIDE)))


def flagged(heads: Mapping[str, Fitted]) -> dict[str, Bools]:
    """Which rows (N) each head of the first stage flags."""
    flags = {name: head.scores >= head.limit for name, head in heads.items()}
    for name, head in heads.items():
        if head.beside is not None:
            flags[name] |= flags["harmful"] & (head.scores >= head.beside)
    return flags


def flagged_by_encoder(
    corpus: Corpus, samples: Samples, heads: Mapping[str, Fitted], fit: SecondFit
) -> tuple[dict[str, Bools], Bools]:
    """Which rows (N) each head of the second stage flags, and which rows it was shown."""
    firsts, shown, before = _firsts(heads), np.zeros(len(corpus.rows), bool), flagged(heads)
    flags = {name: before[name] if name in FIRST_ONLY else np.zeros(len(corpus.rows), bool) for name in heads}
    unclear = np.any([head.scores >= head.clear for name, head in heads.items() if name not in FIRST_ONLY], axis=0)
    for tongue, sample in (("english", samples.english), ("other", samples.other)):
        scores = second_scores(fit.second, sample, firsts, english=tongue == "english")
        read = (sample.tongues == "english") == (tongue == "english")
        asked = read & unclear[sample.rows] if tongue == "english" else read
        shown[sample.rows[read]] = True
        for column, name in enumerate(heads):
            if name not in FIRST_ONLY:
                limits = np.array([fit.limits[each][name] for each in sample.tongues])
                flags[name][sample.rows[asked]] = (scores[:, column] >= limits)[asked]
    return flags, shown


def _firsts(heads: Mapping[str, Fitted]) -> Firsts:
    return Firsts(tuple(heads), np.stack([head.scores for head in heads.values()], axis=1))


def _samples(corpus: Corpus, say: Say) -> Samples:
    say("encoding: some minutes, the first time")
    return Samples(sample_of(corpus, english=True), sample_of(corpus, english=False))


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


def _zero_shot(
    corpus: Corpus,
    heads: Mapping[str, Fitted],
    samples: Samples | None,
    second: SecondFit | None,
    names: Sequence[str],
    seed: int,
    say: Say,
) -> dict[str, list[Figure]]:
    """Figures of each set by heads and limits that knew neither it nor its relations."""
    found: dict[str, list[Figure]] = {"linear": [], "encoder": []}
    for name in (name for name in names if name in ZERO_SHOT):
        own = corpus.of_set[name]
        rows = corpus.learnt & ~np.isin(corpus.source, (name, *RELATED.get(name, ())))
        saying = [head for head in heads if (corpus.says(head)[own] >= 0).any()]
        if not (own & corpus.held).any() or any(set(corpus.says(h)[rows].tolist()) < {0, 1} for h in saying):
            continue
        say(f"without {name}")
        others = {**heads, **fit_heads(corpus, rows, saying)}
        found["linear"] += _of(name, figures(corpus, flagged(others), corpus.held & own, (), seed=seed))
        if samples and second:
            again = fit_second(corpus, samples.english, samples.other, _firsts(others), rows)
            flags, read = flagged_by_encoder(corpus, samples, others, again)
            found["encoder"] += _of(name, figures(corpus, flags, corpus.held & own & read, (), seed=seed))
    return found


def _of(name: str, found: Sequence[Figure]) -> list[Figure]:
    return [each for each in found if each.case == name]


def _packed(heads: Mapping[str, Fitted], second: SecondFit | None) -> bytes:
    file, parts = io.BytesIO(), {"linear": np.stack([head.weights for head in heads.values()], axis=1)}
    if second:
        parts |= {name: getattr(second.second, name) for name in ("english", "other")}
    halves = {name: part.astype(np.float16) for name, part in parts.items()}
    np.savez_compressed(file, offsets=np.array([h.offset for h in heads.values()], np.float32), **halves)  # type: ignore[arg-type]
    return file.getvalue()


def _card(
    heads: Mapping[str, Fitted],
    second: SecondFit | None,
    found: Mapping[str, Sequence[Figure]],
    zero: Mapping[str, Sequence[Figure]],
) -> dict[str, Any]:
    limits = {
        name: {"limit": head.limit, "clear": round(head.clear, 4)}
        | ({"beside": head.beside} if head.beside is not None else {})
        | (
            {tongue: limits[name] for tongue, limits in second.limits.items()}
            if second and name not in FIRST_ONLY
            else {}
        )
        for name, head in heads.items()
    }
    stages = {
        name: {"held_out": as_json(each), "zero_shot": as_json(zero.get(name, ()))} for name, each in found.items()
    }
    return {"version": 1, "name": "spiritsafe guard heads", "heads": limits, "stages": stages}


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
