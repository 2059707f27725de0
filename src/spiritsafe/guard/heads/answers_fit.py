"""`spiritsafe guard fit-answers`: the control of answers from labelled answers, its limits, a card of how it errs.

learnt      labelled answers; nothing of real traffic, nothing of the sets that a request head only measures
limits      on the answers of half of the real traffic, by length: the lowest that flag no more than their budget
figures     of answers never seen (`answers_corpus`), and of the other half of the traffic, run as in use
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spiritsafe.errors import writing
from spiritsafe.guard.heads.answers import CARD, COUNTS, HEADS, VERSION, WEIGHTS, open_answers
from spiritsafe.guard.heads.answers_corpus import (
    SHIPPED,
    Answers,
    Asking,
    Linear,
    Say,
    answers_of,
    fit_two,
    fold_of,
    never_seen,
    request_heads,
)
from spiritsafe.guard.heads.answers_figures import in_use, unseen_figures
from spiritsafe.guard.heads.answers_sets import LEARNT, TRAFFIC, PairSet
from spiritsafe.guard.heads.corpus import Array, Bools, corpus_of
from spiritsafe.guard.heads.heads import open_heads
from spiritsafe.guard.heads.sets import SETS, default_names
from spiritsafe.record import bytes_digest, write_atomic, write_json

# Of the traffic's answers, for each of `COUNTS`: by both rules, and by the answer alone. Less than what may be flagged,
# so that other traffic has room.
BUDGETS = {"pair": (0.014, 0.014, 0.014), "alone": (0.005, 0.005, 0.005)}
STEP = 0.02
FEW = 50
Limits = dict[str, tuple[float, ...]]


def fit_answers(data: str, heads: str, out: Path, *, seed: int, say: Say) -> Mapping[str, Any]:
    """Fit the control of answers beside the request heads of a folder, write weights and card, and give the card.

    Raises `DataError` for files that are not at hand.
    """
    folds = sorted({fold_of(each) for each in LEARNT} - {SHIPPED})
    corpus = corpus_of([SETS[name] for name in default_names()], data)
    asking = request_heads(corpus, folds, say) | {SHIPPED: _of_folder(heads)}
    answers = answers_of([*LEARNT, TRAFFIC], data, asking)
    learnt = answers.source != TRAFFIC.name
    say(f"{int(learnt.sum()):,} answers to learn from, {int((~learnt).sum()):,} of real traffic")
    raw = _packed(asking[SHIPPED][0], *fit_two(answers, learnt), asking[SHIPPED][1])
    told = never_seen(answers, LEARNT, say)
    told = np.where(learnt, told, _told_by(answers, raw))
    calibrating = ~learnt & is_first_half(answers)
    limits = choose(answers, told, calibrating)
    card = {
        "version": VERSION,
        "name": "spiritsafe control of answers",
        "weights_sha256": bytes_digest(raw),
        "requests_sha256": open_heads(heads).digest,
        "seed": seed,
        "limits": limits,
        "never_seen": unseen_figures(answers, told, limits, learnt, seed=seed),
        "sets": [_set_card(each, answers) for each in (*LEARNT, TRAFFIC)],
    }
    with writing(out, option="-o DIR"):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / WEIGHTS, raw)
    write_json(out / CARD, card)
    say("measuring in use")
    rest = [answers.pairs[i] for i in np.flatnonzero(~learnt & ~calibrating)]
    card |= {"in_use": in_use(open_answers(str(out)), rest, [p for p in answers.pairs if p.did_harm])}
    write_json(out / CARD, card)
    return card


def is_first_half(answers: Answers) -> Bools:
    """Half of the rows, by the hash of their conversation."""
    return np.array([hashlib.sha256(f"half {p.group}".encode()).digest()[0] < 128 for p in answers.pairs])


def choose(answers: Answers, told: Array, rows: Bools) -> Limits:
    """The limit of each rule for each of `COUNTS`, none lower than that of shorter answers."""
    limits: dict[str, list[float]] = {"pair": [], "alone": []}
    for at, (first, end) in enumerate(zip(COUNTS, (*COUNTS[1:], np.inf), strict=True)):
        band = rows & (answers.counts >= first) & (answers.counts < end)
        if band.sum() < FEW and at:  # too few to judge by: the limits of shorter ones
            limits = {name: [*own, own[-1]] for name, own in limits.items()}
            continue
        alone = max([*limits["alone"], _lowest(told[band], BUDGETS["alone"][at])])
        left = BUDGETS["pair"][at] - float((told[band] >= alone).mean())
        pair = (answers.asked + told)[band & (told < alone)]
        share = left * band.sum() / max(1, len(pair))
        limits["alone"].append(alone)
        limits["pair"].append(max([*limits["pair"], _lowest(pair, share)]))
    return {name: tuple(round(each, 4) for each in own) for name, own in limits.items()}


def _lowest(scores: Array, budget: float) -> float:
    """The lowest limit, in steps, that at most such a share of the scores reaches."""
    order = np.sort(scores)[::-1]
    return float(np.floor(order[int(budget * len(order))] / STEP + 1) * STEP)


def _of_folder(heads: str) -> Asking:
    return _head_of(heads, "harmful"), _head_of(heads, "injection")


def _head_of(heads: str, name: str) -> Linear:
    opened = open_heads(heads)
    column = opened.names.index(name)
    weights = opened.linear.codes[:, column].astype(float) * float(opened.linear.units[column])
    return weights, float(opened.offsets[column])


def _told_by(answers: Answers, raw: bytes) -> Array:
    """What each answer tells by the weights as they are shipped."""
    with np.load(io.BytesIO(raw)) as held:
        scores = answers.windows @ held["linear"].astype(float) + held["offsets"]
    return answers.told(scores[:, HEADS.index("harms")], scores[:, HEADS.index("declines")])


def _packed(*heads: Linear) -> bytes:
    file = io.BytesIO()
    weights = np.stack([weights for weights, _ in heads], axis=1).astype(np.float16)
    offsets = np.array([offset for _, offset in heads], np.float32)
    np.savez_compressed(file, linear=weights, offsets=offsets)
    return file.getvalue()


def _set_card(each: PairSet, answers: Answers) -> dict[str, Any]:
    says: Sequence[int] = answers.did_harm[answers.source == each.name].tolist()
    return {
        "name": each.name,
        "licence": each.licence,
        "answers": len(says),
        "did_harm": says.count(1),
        "harmless": says.count(0),
    }
