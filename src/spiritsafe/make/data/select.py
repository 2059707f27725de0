"""Which answers become training data, and why the others do not: a pure function of what is stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from spiritsafe.make.data.clean import Seen, decontaminate
from spiritsafe.make.data.keep import Candidate, reasons
from spiritsafe.make.data.near import near_duplicates
from spiritsafe.make.data.settings import CleanPart, DataSettings, NearPart
from spiritsafe.record import Exchange, digest_of

Dropped = dict[str, dict[str, Any]]


def select(
    settings: DataSettings, candidates: Sequence[Candidate], evaluations: Mapping[str, Sequence[str]]
) -> tuple[Dropped, tuple[Seen, ...]]:
    """By exchange id why an answer is left out, and how much of each evaluation set the answers showed.

    Rules of rejection sampling come first, then doubles of what is left, then what shows an evaluation set.
    """
    found = reasons(candidates, settings.keep)
    dropped: Dropped = {i: {"reason": why} for i, why in found.items() if why != "kept"}
    left = [c.exchange for c in candidates if c.exchange.id not in dropped]
    if settings.near:
        dropped |= _doubles(left, settings.near)
        left = [e for e in left if e.id not in dropped]
    if not settings.clean:
        return dropped, ()
    shown, seen = _contaminated(left, evaluations, settings.clean)
    return dropped | shown, seen


def _doubles(exchanges: Sequence[Exchange], part: NearPart) -> Dropped:
    texts = [_text(e, part.of) for e in exchanges]
    found = near_duplicates(texts, threshold=part.threshold, ngram=part.ngram, recall=part.recall)
    return {
        exchanges[d.index].id: {"reason": "near-duplicate", "of": exchanges[d.of].id, "jaccard": d.jaccard}
        for d in found
    }


def _contaminated(
    exchanges: Sequence[Exchange], evaluations: Mapping[str, Sequence[str]], part: CleanPart
) -> tuple[Dropped, tuple[Seen, ...]]:
    found = decontaminate([[*(m.content for m in e.messages), e.answer] for e in exchanges], evaluations, part)
    dropped: Dropped = {}
    for hit in found.hits:
        exchange = exchanges[hit.item]
        why = {"reason": "contaminated", "digest": digest_of(exchange.answer)[:16], "hits": []}
        dropped.setdefault(exchange.id, why)["hits"].append(hit.model_dump(exclude={"item"}))
    return dropped, found.seen


def _text(exchange: Exchange, of: str) -> str:
    prompt = "\n".join(m.content for m in exchange.messages)
    return {"prompt": prompt, "answer": exchange.answer}.get(of, f"{prompt}\n{exchange.answer}")
