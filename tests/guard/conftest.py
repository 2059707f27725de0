"""A real gateway on loopback with fake models, and the official client."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.models import Model, open_model
from spiritsafe.models.base import OnExchange, OnText, Request, Scores
from spiritsafe.record import Exchange, read_jsonl


@dataclass(frozen=True)
class Served:
    """A running gateway, a valid key of account `alice`, and where its log is."""

    url: str
    key: str
    keys: Keys
    log_path: Path
    client: openai.OpenAI

    def log(self) -> list[Exchange]:
        """What was logged so far."""
        return read_jsonl(self.log_path, Exchange)


class FailingModel:
    """A model that fails as it is told, after the text it is told to stream."""

    address, digest = "failing", "0" * 64

    def __init__(self, error: Exception, streamed: str = "") -> None:
        self.error, self.streamed = error, streamed

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Stream, then fail."""
        if on_text and self.streamed:
            for piece in re.findall(r"\S+ ?", self.streamed):
                on_text(0, piece)
        raise self.error

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Fail."""
        raise self.error


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a gateway: `serve("fake:echo", max_pending=1)`."""
    with ExitStack() as stack:

        def start(model: str | Model, log_path: Path = tmp_path / "log.jsonl", **options: object) -> Served:
            opened = open_model(model) if isinstance(model, str) else model
            keys = Keys(tmp_path / "keys.db")
            key = keys.create("alice")
            app = create_app(opened, keys=keys, log=log_path, name="served", **options)  # type: ignore[arg-type]
            url = stack.enter_context(serving(app))
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)
            stack.enter_context(client)
            return Served(url, key, keys, log_path, client)

        yield start
