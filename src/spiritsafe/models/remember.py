"""A model that answers an equal request from memory: for a reviewer who is asked the same thing twice."""

from collections.abc import Sequence

from spiritsafe.models.base import Model, OnExchange, OnText, Request, Scores, told
from spiritsafe.record import Exchange


class Remembering:
    """Wraps a model; only requests not seen before reach it. Texts are not streamed."""

    def __init__(self, inner: Model) -> None:
        self.inner, self.address, self.digest = inner, inner.address, inner.digest
        self._seen: dict[Request, Exchange] = {}

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; see `spiritsafe.models.Model`."""
        new = [r for r in dict.fromkeys(requests) if r not in self._seen]
        answers = {**self._seen, **dict(zip(new, self.inner.generate(new), strict=True))}
        # What failed for a while only is asked again.
        self._seen = {r: e for r, e in answers.items() if e.error_kind != "passing"}
        return told([answers[r] for r in requests], on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The inner model's log-probabilities in nats."""
        return self.inner.score(exchanges, top_k=top_k)
