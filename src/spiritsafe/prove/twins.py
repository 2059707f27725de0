"""Draw twins: more answers to logged prompts, from the same model with exactly the logged settings."""

from collections.abc import Sequence

import numpy as np

from spiritsafe.errors import DataError
from spiritsafe.models.base import Request
from spiritsafe.record import Exchange, seed_of


def auditable(exchanges: Sequence[Exchange], *, model_digest: str) -> list[Exchange]:
    """The logged exchanges a twin can be drawn for: sampled (temperature > 0) by this model, and sent whole.

    Raises `DataError` where none is left.
    """
    kept = [
        e
        for e in exchanges
        if e.sampling.temperature > 0
        and e.model_digest == model_digest
        and e.finish_reason not in ("content_filter", "error")
        and e.sent is None
        and e.token_ids
    ]
    if not kept:
        raise DataError("log", "holds no exchange that was sampled by this model at a temperature above 0")
    return kept


def choose(exchanges: Sequence[Exchange], *, most: int, seed: int) -> list[Exchange]:
    """At most `most` exchanges, one a prompt, chosen by the seed alone and kept in the log's order."""
    first = list({e.messages: e for e in reversed(exchanges)}.values())[::-1]
    if len(first) <= most:
        return first
    picks = np.random.Generator(np.random.Philox(seed)).choice(len(first), most, replace=False)
    return [first[i] for i in sorted(picks.tolist())]


def twin_requests(served: Sequence[Exchange], *, num_twins: int, seed: int) -> list[Request]:
    """`num_twins` requests for each served exchange, contiguous; fresh seeds, all else as logged."""
    return [
        Request(
            e.messages,
            e.sampling.model_copy(update={"seed": seed_of(seed, "twin", e.id, k)}),
            open_turn=e.open_turn,
            account="twin",
        )
        for e in served
        for k in range(num_twins)
    ]
