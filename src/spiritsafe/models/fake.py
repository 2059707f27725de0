"""The test double, part of the product: answers at once, without weights, the same on every machine.

    fake:echo                  answers with the last user turn
    fake:fixed=TEXT            answers TEXT
    fake:slow=SECONDS          sleeps so long for each request, then echoes
    fake:random[,bias=SEED]    seeded words with exact log-probabilities

Tokens are words. `fake:random` draws its words independently from one fixed distribution over `WORDS`
(another one for each bias), and after the first word ends with probability `END` before each further
one; temperature and top-p do not change it. Only `fake:random` knows token ids and can score.
"""

import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from spiritsafe.errors import ModelError, UsageError
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, identity
from spiritsafe.record import Exchange, Sampling, Usage, digest_of, seed_of

TEXT = (
    "a an and are as at barley be by cask copper day for from glass grain in is it juniper malt mash not "
    "of on or peat pot rye safe spirit still that the to vat was water wheat with yeast"
)
WORDS = tuple(TEXT.split())
END_ID = len(WORDS)
END = 1 / 16
FORMS = "fake:echo, fake:fixed=TEXT, fake:slow=SECONDS or fake:random[,bias=SEED]"


@dataclass(frozen=True)
class Draft:
    """An answer in the making: its text, why it ended, and its tokens where they are known."""

    text: str
    ended: bool
    num_tokens: int
    token_ids: tuple[int, ...] | None = None


Write = Callable[[Request], Draft]


@dataclass(frozen=True)
class Unigram:
    """Probabilities of `WORDS`, by word id."""

    probabilities: tuple[float, ...]

    def logprob(self, token_id: int, position: int) -> float:
        """Log-probability in nats of a token at a position of the answer; no answer begins with the end."""
        if token_id == END_ID:
            return math.log(END) if position else -math.inf
        return math.log(self.probabilities[token_id]) + (math.log(1 - END) if position else 0.0)


class FakeModel:
    """A model that writes by rule; `unigram` is its distribution where it has one.

    One that sleeps is asked by `threads` for each request alone, as a server is.
    """

    def __init__(self, address: str, write: Write, unigram: Unigram | None = None, *, threads: int = 1) -> None:
        self.address, self.digest = address, digest_of(address)
        self.threads, self.alone = threads, threads > 1
        self._write, self._unigram = write, unigram
        self.gives_logprobs = unigram is not None

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order, text word by word."""
        exchanges = []
        for index, request in enumerate(requests):
            exchange = self._answer(request)
            if on_text:
                for piece in _words(exchange.answer):
                    on_text(index, piece)
            if on_exchange:
                on_exchange(exchange)
            exchanges.append(exchange)
        return exchanges

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Exact log-probabilities in nats. Raises `ModelError` unless this is `fake:random`."""
        if self._unigram is None:
            raise ModelError(self.address, "has no log-probabilities", "use fake:random")
        return [_score(self.address, self._unigram, exchange, top_k) for exchange in exchanges]

    def _answer(self, request: Request) -> Exchange:
        started_at_s = time.time()
        draft = self._write(request)
        logprobs = _logprobs(self._unigram, draft.token_ids)
        return Exchange(
            **identity(self.address, self.digest, request),
            answer=draft.text,
            finish_reason="stop" if draft.ended else "length",
            token_ids=draft.token_ids,
            logprobs=logprobs,
            usage=Usage(prompt_tokens=_num_words(request), completion_tokens=draft.num_tokens),
            started_at_s=started_at_s,
            elapsed_s=time.time() - started_at_s,
        )


def open_fake(address: str, rest: str, batch: int) -> FakeModel:
    """Open a `fake:` address. Raises `UsageError` where its form is unknown."""
    form, _, value = rest.partition("=")
    if rest == "echo":
        return FakeModel(address, _echo)
    if form == "fixed":
        return FakeModel(address, partial(_fixed, value))
    if form == "slow" and re.fullmatch(r"\d+(\.\d+)?", value):
        return FakeModel(address, partial(_slow, float(value)), threads=64)
    if rest == "random" or (form == "random,bias" and value.isdecimal()):
        unigram = unigram_of(int(value or 0))
        return FakeModel(address, partial(_random, unigram), unigram)
    raise UsageError(address, "is not a fake model", FORMS)


def unigram_of(bias: int) -> Unigram:
    """The distribution of `fake:random,bias=BIAS`: weights 1/(rank + 2), ranks shuffled by the bias."""
    weights = [1 / (rank + 2) for rank in range(len(WORDS))]
    random.Random(bias).shuffle(weights)
    return Unigram(tuple(weight / sum(weights) for weight in weights))


def _echo(request: Request) -> Draft:
    asked = [message.content for message in request.messages if message.role == "user"]
    return _cut(asked[-1] if asked else "", request.sampling)


def _fixed(text: str, request: Request) -> Draft:
    return _cut(text, request.sampling)


def _slow(seconds: float, request: Request) -> Draft:
    time.sleep(seconds)
    return _echo(request)


def _random(unigram: Unigram, request: Request) -> Draft:
    turns = [(message.role, message.content) for message in request.messages]
    draw = random.Random(seed_of("fake", request.sampling.seed, request.open_turn, turns))
    cumulative = list(accumulate(unigram.probabilities))
    ids: list[int] = []
    while len(ids) < request.sampling.max_tokens:
        if ids and draw.random() < END:
            return Draft(_text(ids), True, len(ids) + 1, (*ids, END_ID))
        ids += draw.choices(range(len(WORDS)), cum_weights=cumulative)
        if (at := _stop_at(_text(ids), request.sampling)) is not None:
            return Draft(_text(ids)[:at], True, len(ids), tuple(ids))
    return Draft(_text(ids), False, len(ids), tuple(ids))


def _cut(text: str, sampling: Sampling) -> Draft:
    at = _stop_at(text, sampling)
    words = _words(text if at is None else text[:at])
    kept = words[: sampling.max_tokens]
    return Draft("".join(kept), len(kept) == len(words), len(kept))


def _stop_at(text: str, sampling: Sampling) -> int | None:
    found = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
    return min(found, default=None)


def _words(text: str) -> list[str]:
    """Words with the space after them; joined they are the text again."""
    return re.findall(r"\S+\s*|^\s+", text)


def _num_words(request: Request) -> int:
    return sum(len(message.content.split()) for message in request.messages)


def _text(ids: Sequence[int]) -> str:
    return " ".join(WORDS[i] for i in ids if i != END_ID)


def _logprobs(unigram: Unigram | None, ids: tuple[int, ...] | None) -> tuple[float, ...] | None:
    if unigram is None or ids is None:
        return None
    return tuple(unigram.logprob(token_id, position) for position, token_id in enumerate(ids))


def _score(address: str, unigram: Unigram, exchange: Exchange, top_k: int) -> Scores:
    ids = exchange.token_ids if exchange.token_ids is not None else _read(address, exchange)
    if any(not 0 <= i <= END_ID for i in ids):
        raise ModelError(address, f"exchange {exchange.id} holds tokens of another vocabulary")
    logprobs = tuple(unigram.logprob(token_id, position) for position, token_id in enumerate(ids))
    tops = tuple(_top(unigram, position, top_k) for position in range(len(ids))) if top_k else ()
    top_logprobs = tuple(tuple(unigram.logprob(i, position) for i in top) for position, top in enumerate(tops))
    return Scores(ids, logprobs, tops, top_logprobs)


def _read(address: str, exchange: Exchange) -> tuple[int, ...]:
    words = exchange.answer.split()
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise ModelError(address, f"'{unknown[0]}' in exchange {exchange.id} is not in its vocabulary")
    return tuple(WORDS.index(word) for word in words) + ((END_ID,) if exchange.finish_reason == "stop" else ())


def _top(unigram: Unigram, position: int, top_k: int) -> tuple[int, ...]:
    ranked = sorted(range(END_ID + 1), key=lambda i: unigram.logprob(i, position), reverse=True)
    return tuple(ranked[:top_k])
