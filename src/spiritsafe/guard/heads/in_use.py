"""How often heads err as they are used: their own code on real traffic, and on requests with harmless text around.

Real traffic is the half on which no limit was chosen; people's questions are taken for harmless, which some is not.
Requests are of sets that no head learnt from.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from spiritsafe.evidence import wilson
from spiritsafe.guard.heads.corpus import Bools, Corpus
from spiritsafe.guard.heads.heads import open_heads
from spiritsafe.guard.heads.language import tongue_of
from spiritsafe.guard.heads.limits import TRAFFIC, calibrating
from spiritsafe.guard.heads.readers import ANSWER, FIRST, LATER, TURNS, Row
from spiritsafe.guard.heads.score import Scorer
from spiritsafe.guard.views import views_of

SENTENCE = "The garden was quiet and the bread was warm."
PADDING = (
    "We bake bread with the family on Sundays and then we take the dog for a walk along the river. In the afternoon "
    "my sister waters the tomatoes while the children draw boats with chalk. Later we cook soup with carrots, beans "
    "and a little thyme. The neighbours bring plums from their tree and stay for tea. When it rains we play cards at "
    "the kitchen table and listen to the radio."
)
BINS = ((0, 200), (200, 500), (500, 1500), (1500, 4000), (4000, 1 << 30))
REQUESTS = ("simple-safety-tests", "do-not-answer")
MOST, MOST_TALKS, MOST_REQUESTS = 1500, 200, 300  # texts that an encoder is shown; without one, all
Say = Callable[[str], None]


def in_use(source: str, corpus: Corpus, *, encoder: bool, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Shares of texts flagged by stage, each with n and a 95 % interval; nothing of sets that are not at hand."""
    found = {}
    for stage in ("linear", "encoder") if encoder else ("linear",):
        say(f"measuring the {stage} heads in use")
        scorer = Scorer(source, dict.fromkeys(open_heads(source).names), encoder=stage == "encoder")
        few = stage == "encoder"
        found[stage] = [*_traffic(scorer, corpus, few=few), *_diluted(scorer, corpus, few=few)]
    return found


def _traffic(scorer: Scorer, corpus: Corpus, *, few: bool) -> Iterator[dict[str, Any]]:
    test = corpus.of_set.get(TRAFFIC, np.zeros(len(corpus.rows), bool)) & ~calibrating(corpus)
    rows = [corpus.rows[i] for i in np.flatnonzero(test)]
    firsts = [row for row in rows if row.part == FIRST][: MOST if few else None]
    if not firsts:
        return
    flags = _flags(scorer, [row.text for row in firsts])
    tongues = np.array([tongue_of(views[0]) for views in views_of([row.text for row in firsts])])
    sizes = np.array([len(row.text) for row in firsts])
    for tongue in ("english", "german", "other"):
        yield _share(f"first questions, {tongue}", flags[tongues == tongue])
    for low, high in BINS:
        to = f"to {high:,}" if high < BINS[-1][1] else "and more"
        yield _share(f"first questions of {low:,} {to} characters", flags[(sizes >= low) & (sizes < high)])
    yield _share("first questions of more than 1,500 characters", flags[sizes > BINS[2][1]])
    yield from _talks(scorer, [row for row in rows if row.part != FIRST], most=MOST_TALKS if few else len(rows))


def _talks(scorer: Scorer, rows: Sequence[Row], *, most: int) -> Iterator[dict[str, Any]]:
    """Conversations of which any question so far was flagged, by how many were asked; then the answers between."""
    talks: dict[str, list[Row]] = {}
    for row in rows:
        talks.setdefault(row.group, []).append(row)
    chosen = list(talks.values())[:most]
    texts = [row.text for talk in chosen for row in talk]
    flags = iter(_flags(scorer, texts).tolist())
    marked = [[(row.part, next(flags)) for row in talk] for talk in chosen]
    for turns in (1, 2, 4, TURNS):
        any_of = [any(flag for part, flag in talk if part == LATER) for talk in (_until(t, turns) for t in marked)]
        yield _share(f"conversations, questions up to turn {turns}", np.array(any_of))
    answers = [flag for talk in marked for part, flag in talk if part == ANSWER]
    yield _share("answers within conversations, read as a turn sent back", np.array(answers))


def _until(talk: Sequence[tuple[str, bool]], turns: int) -> list[tuple[str, bool]]:
    ends = [i for i, (part, _) in enumerate(talk) if part == LATER]
    return list(talk[: ends[min(turns, len(ends)) - 1] + 1])


def _diluted(scorer: Scorer, corpus: Corpus, *, few: bool) -> Iterator[dict[str, Any]]:
    for name in REQUESTS:
        texts = [corpus.rows[i].text for i in np.flatnonzero(corpus.of_set.get(name, np.zeros(0, bool)))]
        texts = texts[: MOST_REQUESTS if few else None]
        if not texts:
            continue
        yield _share(f"{name}, alone", _flags(scorer, texts))
        yield _share(f"{name}, after one harmless sentence", _flags(scorer, [f"{SENTENCE} {t}" for t in texts]))
        yield _share(f"{name}, before one harmless sentence", _flags(scorer, [f"{t} {SENTENCE}" for t in texts]))
        yield _share(f"{name}, after {len(PADDING)} characters", _flags(scorer, [f"{PADDING} {t}" for t in texts]))
        around = [f"{PADDING} {t} {PADDING}" for t in texts]
        yield _share(f"{name}, between twice as many", _flags(scorer, around))


def _flags(scorer: Scorer, texts: Sequence[str]) -> Bools:
    return np.array([bool(each.hits) for each in scorer.score_texts(texts, views_of(texts))], bool)


def _share(case: str, flags: Bools) -> dict[str, Any]:
    share = wilson(float(flags.sum()), len(flags))
    value, low, high = (round(each, 4) for each in (share.value, share.low, share.high))
    return {"case": case, "value": value, "low": low, "high": high, "n": len(flags)}
