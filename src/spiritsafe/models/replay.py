"""A model that answers from stored exchanges: `replay:EXCHANGES.jsonl`, no weights, no network.

An exchange fits where prompt, open turn and sampling are equal; where no seed fits, the only one with
equal settings otherwise. What was never asked fails alone, it is not guessed.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spiritsafe.errors import DataError, ModelError
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, exchange_id, failed, told
from spiritsafe.progress import warn
from spiritsafe.record import Exchange, Message, Sampling, prompt_digest, read_jsonl

Key = tuple[str, str, str]


class ReplayModel:
    """The stored exchanges of one model, looked up by prompt and sampling."""

    def __init__(self, address: str, path: Path, exchanges: Sequence[Exchange]) -> None:
        self.address, self.digest = address, _one_digest(path, exchanges)
        self._exact: dict[Key, list[Exchange]] = {}
        self._seedless: dict[Key, list[Exchange]] = {}
        self._answers: dict[Key, Exchange] = {}
        for exchange in exchanges:
            prompt = _prompt(exchange.messages, exchange.open_turn)
            self._exact.setdefault((*prompt, _settings(exchange.sampling)), []).append(exchange)
            self._seedless.setdefault((*prompt, _settings(_without_seed(exchange.sampling))), []).append(exchange)
            self._answers.setdefault((*prompt, exchange.answer), exchange)

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """The stored answers, in order, each under the account that asks. A new prompt's is `failed`."""
        return told([self._stored(request) for request in requests], on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The stored log-probabilities in nats. Raises `ModelError` where there are none, or for `top_k`."""
        if top_k:
            raise ModelError(self.address, "exchanges hold no top-k log-probabilities", "score with the model itself")
        return [self._score(exchange) for exchange in exchanges]

    def _stored(self, request: Request) -> Exchange:
        prompt = _prompt(request.messages, request.open_turn)
        found = self._exact.get((*prompt, _settings(request.sampling)), [])
        found = found or self._seedless.get((*prompt, _settings(_without_seed(request.sampling))), [])
        if not found:
            return self._failed(request, f"holds no answer to {_name(request)}; ask the model itself, or store it")
        if len({exchange.answer for exchange in found}) > 1:
            return self._failed(request, f"holds {len(found)} answers to {_name(request)}; ask with a stored seed")
        return _under_account(found[0], request)

    def _failed(self, request: Request, what: str) -> Exchange:
        return failed(self.address, self.digest, request, what, "request")

    def _score(self, exchange: Exchange) -> Scores:
        stored = self._answers.get((*_prompt(exchange.messages, exchange.open_turn), exchange.answer))
        if stored is None or stored.token_ids is None or stored.logprobs is None:
            what = f"holds no log-probabilities of exchange {exchange.id}"
            raise ModelError(self.address, what, "score with the model itself")
        return Scores(stored.token_ids, stored.logprobs)


def open_replay(address: str, rest: str, batch: int) -> ReplayModel:
    """Open stored exchanges as a model. Raises `DataError` for a missing or broken file, or several models in one."""
    path = Path(rest)
    if not path.is_file():
        raise DataError(rest, "no such file", "replay:PATH names a JSONL file of exchanges")
    return ReplayModel(address, path, read_jsonl(path, Exchange, on_unsealed=warn))


def _one_digest(path: Path, exchanges: Sequence[Exchange]) -> str:
    digests = sorted({exchange.model_digest for exchange in exchanges})
    if not digests:
        raise DataError(str(path), "holds no exchange")
    if len(digests) > 1:
        what = f"holds exchanges of several models, {digests[0][:12]} and {digests[1][:12]}"
        raise DataError(str(path), what, "keep one file for each model")
    return digests[0]


def _prompt(messages: Sequence[Message], open_turn: str) -> tuple[str, str]:
    return prompt_digest(messages), open_turn


def _settings(sampling: Sampling) -> str:
    return sampling.model_dump_json()


def _without_seed(sampling: Sampling) -> Sampling:
    return sampling.model_copy(update={"seed": None})


def _name(request: Request) -> str:
    text = request.messages[-1].content if request.messages else "(no message)"
    return f"{text[:60]!r} with {_settings(request.sampling)}"


def _under_account(stored: Exchange, request: Request) -> Exchange:
    if stored.account == request.account:
        return stored
    identity = exchange_id(stored.model_digest, replace(request, sampling=stored.sampling))
    return stored.model_copy(update={"account": request.account, "id": identity})
