"""`spiritsafe guard fit`: heads from named data sets, their limits, and a card of how often they err.

    never seen    rows of a set learnt from, scored by heads that saw no row of it nor of its relations (`FOLDS`)
    held out      rows no fit saw, of sets whose other rows were learnt, and of sets that are measured only
    limits        on rows never seen, and on half of the real traffic, from which nothing is learnt

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
from spiritsafe.guard.heads.heads import CARD, VERSION, WEIGHTS
from spiritsafe.guard.heads.in_use import in_use
from spiritsafe.guard.heads.language import tongue_of
from spiritsafe.guard.heads.limits import BESIDE, calibrating, choose, clear_below, limits_of
from spiritsafe.guard.heads.linear import crossed, fit_linear, rarity
from spiritsafe.guard.heads.sample import sample_of
from spiritsafe.guard.heads.second_fit import FIRST_ONLY, SecondFit, fit_second
from spiritsafe.guard.heads.sets import SETS, DataSet, trainable
from spiritsafe.record import bytes_digest, file_digest, write_atomic, write_json

NAMES = ("harmful", "injection", "abusive")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """A head of the first stage: weights (WIDTH), offset, limits by `COUNTS`, and the score that the second waits for.

    `windows` (V) and `scores` (N) are, for rows learnt from, by heads that saw no row of their fold. `beside` are the
    limits for texts that `harmful` flags: an attack is framed around a harm.
    """

    weights: Array
    offset: float
    limits: tuple[float, ...]
    clear: float
    windows: Array
    scores: Array
    beside: tuple[float, ...] | None = None


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
    corpus = corpus_of(sets, data)
    say(f"{corpus.learnt.sum():,} rows to learn from, {corpus.held.sum():,} held out")
    told = [head for head in NAMES if {0, 1} <= set(corpus.says(head)[corpus.learnt].tolist())]
    if not told:
        raise UsageError(" ".join(names), "say of no head both yes and no", "add a set, such as xstest")
    heads = fit_heads(corpus, corpus.learnt, told, say)
    second = _fit_second(corpus, heads, say) if encoders else None
    raw = _packed(heads, second)
    card = _card(heads, second, _figures(corpus, heads, second, seed)) | {
        "weights_sha256": bytes_digest(raw),
        "seed": seed,
        "sets": [_set_card(each, corpus, data) for each in sets],
    }
    with writing(out, option="-o DIR"):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / WEIGHTS, raw)
    write_json(out / CARD, card)
    card |= {"in_use": in_use(str(out), corpus, encoder=encoders, say=say)}
    write_json(out / CARD, card)
    return card


def fit_heads(corpus: Corpus, rows: Bools, only: Sequence[str], say: Say) -> dict[str, Fitted]:
    """Heads of the first stage and their limits from the rows given."""
    idf = rarity(corpus, rows)
    heads = {}
    limiting = rows | calibrating(corpus)
    for head in only:
        say(f"fitting {head}")
        weights, offset = fit_linear(corpus, head, rows, idf)
        weights = weights.astype(np.float16).astype(float)
        crossed_V = crossed(corpus, head, idf, rows & (corpus.says(head) >= 0))
        windows = np.where(np.isfinite(crossed_V), crossed_V, corpus.windows @ weights + offset)
        scores = corpus.highest(windows)
        limits = choose(corpus, head, scores, limiting)
        heads[head] = Fitted(weights, offset, limits, clear_below(corpus, head, scores, rows), windows, scores)
    if {"harmful", "injection"} <= set(heads):
        heads["injection"] = _beside(corpus, heads["injection"], heads["harmful"], limiting)
    return heads


def _beside(corpus: Corpus, attack: Fitted, harm: Fitted, rows: Bools) -> Fitted:
    """An injection head with its limits for texts that are found harmful; what its own limits flag stays flagged."""
    low = -9.0
    harmful = harm.scores >= limits_of(corpus.counts, harm.limits)
    scores = np.where(harmful, attack.scores, low)
    beside = choose(corpus, "injection", scores, rows, BESIDE)
    return replace(attack, beside=tuple(map(min, attack.limits, beside)))


def flagged(corpus: Corpus, heads: Mapping[str, Fitted]) -> dict[str, Bools]:
    """Which rows (N) each head of the first stage flags."""
    counts = corpus.counts
    flags = {name: head.scores >= limits_of(counts, head.limits) for name, head in heads.items()}
    for name, head in heads.items():
        if head.beside is not None:
            flags[name] |= flags["harmful"] & (head.scores >= limits_of(counts, head.beside))
    return flags


def flagged_by_encoder(corpus: Corpus, heads: Mapping[str, Fitted], fit: SecondFit) -> tuple[dict[str, Bools], Bools]:
    """Which rows (N) each head of the second stage flags, and which rows it was shown."""
    flags = flagged(corpus, heads)
    shown: Bools = np.logical_or.reduce(np.isfinite(fit.scores), axis=1)
    tongues = np.array([tongue_of(text) for text in corpus.texts])
    unclear: Bools = np.any(
        [head.scores >= head.clear for name, head in heads.items() if name not in FIRST_ONLY], axis=0
    )
    asked = shown & ((tongues != "english") | unclear)
    for column, name in enumerate(heads):
        if name not in FIRST_ONLY:
            limits = np.full(len(tongues), np.inf)
            for tongue, of_head in fit.limits.items():
                if name in of_head:
                    limits = np.where(tongues == tongue, limits_of(corpus.counts, of_head[name]), limits)
            flags[name] = asked & (fit.scores[:, column] >= limits)
    return flags, shown


def _fit_second(corpus: Corpus, heads: Mapping[str, Fitted], say: Say) -> SecondFit:
    firsts = {name: head.windows for name, head in heads.items()}
    # Of a text's pieces those are read that are furthest over a head's `clear`, as in use.
    leading = np.max([head.windows - head.clear for name, head in heads.items() if name not in FIRST_ONLY], axis=0)
    say("encoding English: some minutes, the first time")
    english = sample_of(corpus, leading, english=True)
    say("encoding other languages: some minutes, the first time")
    other = sample_of(corpus, leading, english=False)
    return fit_second(corpus, english, other, firsts, corpus.learnt)


def _figures(
    corpus: Corpus, heads: Mapping[str, Fitted], second: SecondFit | None, seed: int
) -> dict[str, dict[str, list[Figure]]]:
    """By stage: figures of the rows held out, and of rows learnt from by heads that saw none of their fold."""
    stages = {"linear": (flagged(corpus, heads), np.ones(len(corpus.rows), bool))}
    if second:
        stages["encoder"] = flagged_by_encoder(corpus, heads, second)
    rest = ~calibrating(corpus)
    return {
        name: {
            "held_out": figures(corpus, flags, corpus.held & shown & rest, seed=seed),
            "never_seen": figures(corpus, flags, corpus.learnt & shown, seed=seed),
        }
        for name, (flags, shown) in stages.items()
    }


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


def _packed(heads: Mapping[str, Fitted], second: SecondFit | None) -> bytes:
    file, parts = io.BytesIO(), {"linear": np.stack([head.weights for head in heads.values()], axis=1)}
    if second:
        parts |= {name: getattr(second.second, name) for name in ("english", "other")}
    halves = {name: part.astype(np.float16) for name, part in parts.items()}
    np.savez_compressed(file, offsets=np.array([h.offset for h in heads.values()], np.float32), **halves)  # type: ignore[arg-type]
    return file.getvalue()


def _card(
    heads: Mapping[str, Fitted], second: SecondFit | None, found: Mapping[str, Mapping[str, Sequence[Figure]]]
) -> dict[str, Any]:
    limits: dict[str, dict[str, Sequence[float]]] = {}
    for name, head in heads.items():
        limits[name] = {"limit": head.limits, "clear": [round(head.clear, 4)]}
        if head.beside is not None:
            limits[name]["beside"] = head.beside
        if second:
            limits[name] |= {tongue: own[name] for tongue, own in second.limits.items() if name in own}
    stages = {name: {kind: as_json(figs) for kind, figs in each.items()} for name, each in found.items()}
    rounded = {
        name: {kind: [round(each, 4) for each in own] for kind, own in kinds.items()} for name, kinds in limits.items()
    }
    return {"version": VERSION, "name": "spiritsafe guard heads", "heads": rounded, "stages": stages}


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
