"""A model whose answers are kept in a file: an equal request, in this process or a later one, is not asked again."""

from collections.abc import Sequence
from pathlib import Path

from spiritsafe.models.base import Model, OnExchange, OnText, Request, Scores, exchange_id, told
from spiritsafe.record import Exchange, append_jsonl, read_jsonl, repair_jsonl


class Stored:
    """Wraps a model; each new answer is on disk before anyone sees it. Texts are not streamed."""

    def __init__(self, inner: Model, path: Path) -> None:
        self.inner, self.address, self.digest, self._path = inner, inner.address, inner.digest, path
        repair_jsonl(path)
        self._held = {e.id: e for e in read_jsonl(path, Exchange)}
        self._failed: dict[str, Exchange] = {}

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; see `spiritsafe.models.Model`."""
        ids = [exchange_id(self.digest, r) for r in requests]
        new = {i: r for i, r in zip(ids, requests, strict=True) if i not in self._held}
        self.inner.generate(list(new.values()), on_exchange=self._keep)
        return told([self._held.get(i) or self._failed[i] for i in ids], on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The inner model's log-probabilities in nats."""
        return self.inner.score(exchanges, top_k=top_k)

    def _keep(self, exchange: Exchange) -> None:
        if exchange.error_kind == "passing":  # the next who asks may get an answer
            self._failed[exchange.id] = exchange
            return
        append_jsonl(self._path, [exchange])
        self._held[exchange.id] = exchange
