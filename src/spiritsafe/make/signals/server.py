"""Signals from an OpenAI-compatible server that tells log-probabilities, into the same cache as a local teacher's.

Of answers that it writes now: each comes with its log-probabilities, which are kept beside the answers until
all are there (`NAME.said` beside `NAME.jsonl`), then put into the cache. Of given answers: where the server
scores a prompt's tokens, or else by asking for the next token after every prefix, a request a token.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spiritsafe.errors import EndpointError, RecipeError
from spiritsafe.make.data.collect import Collected, collect
from spiritsafe.make.data.settings import CollectPart
from spiritsafe.make.signals.coder import MOST, Rows
from spiritsafe.make.signals.manifest import manifest_of, tokenizer_digest
from spiritsafe.make.signals.probe import AS_IDS, fields_of, probe
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.sample import Keep
from spiritsafe.make.signals.token_map import Named, TokenMap
from spiritsafe.make.signals.wire import Position, Said, chat_positions, prompt_positions, said_of, without_end
from spiritsafe.make.signals.writer import SHARD_TOKENS, Writer
from spiritsafe.models.base import Request
from spiritsafe.models.endpoint import TIMEOUT_S, EndpointModel, patiently
from spiritsafe.models.refused import Refused
from spiritsafe.progress import Tick
from spiritsafe.record import Exchange, Record, append_jsonl, read_jsonl, repair_jsonl

Ids = tuple[int, ...]
Json = dict[str, Any]
TRIES = 4
MAX_UNMAPPED = 0.02


class Heard(Record):
    """What came of a capture: answer tokens in the cache, and the shares of the mass told, and of that unmapped."""

    answers: int
    tokens: int
    told: float
    unmapped: float


class ServerTeacher(EndpointModel):
    """A server's model as a teacher of distributions for a student with this tokenizer and vocabulary.

    `digest` is its identity wherever it is served. Raises `EndpointError` with the reason where it cannot serve.
    """

    def __init__(
        self,
        model: EndpointModel,
        tokenizer: Any,
        vocab: int,
        said: Path,
        *,
        num: int = 20,
        max_unmapped: float = MAX_UNMAPPED,
    ) -> None:
        super().__init__(model.address, model.name, model.url, batch=model.batch, options=model.options)
        self.tokens, self.said, self.max_unmapped = TokenMap(tokenizer, vocab), said, max_unmapped
        self.can = probe(self, self.tokens, wanted=min(num, MOST - 1), max_unmapped=max_unmapped)
        if self.can.refusal:
            raise EndpointError(self.address, self.can.refusal)
        self.digest = self.can.identity
        self._writing = threading.Lock()

    def answer(self, request: Request, *, timeout_s: float = TIMEOUT_S) -> Exchange:
        """An answer in the student's tokens; its signal is stored before it is returned. Raises as its parent does."""
        self.check(request)
        exchange, choice = self.answer_with(request, fields_of(self.can), timeout_s=timeout_s)
        if exchange.error_kind:
            return exchange
        try:
            told = self._told(exchange, choice)
        except EndpointError as error:  # of this answer alone
            raise Refused(error.where, error.what, error.hint, kind="model") from None
        with self._writing:
            append_jsonl(self.said, [told])
        return exchange.model_copy(update={"token_ids": told.token_ids, "logprobs": told.logprobs()})

    def _told(self, exchange: Exchange, choice: Json) -> Said:
        positions = without_end(chat_positions(choice, self.address))
        told = said_of(exchange.id, positions, self.tokens, self.address)
        if self.tokens.text_of(told.token_ids).strip() != exchange.answer.strip():
            what = f"told log-probabilities of {len(told.token_ids)} tokens that do not make up its answer"
            raise EndpointError(self.address, what, "half a character, or a chain of thought that it does not show?")
        return told

    def check(self, request: Request) -> None:
        """Raises `EndpointError` where the log-probabilities of this request would not be the model's own."""
        sampling = request.sampling
        if self.can.distribution != "raw" and (sampling.temperature, sampling.top_p) != (1.0, 1.0):
            what = f"tells log-probabilities after sampling's settings ({self.can.distribution})"
            raise EndpointError(self.address, what, "sample at temperature 1 and top_p 1")

    def scored(self, prompt: Ids, answer: Ids, identity: str) -> Said:
        """The signal of a given answer. Raises `EndpointError` where the server cannot say."""
        if self.can.given == "prefixes":
            return self._prefixes(prompt, answer, identity)
        top, way = self.can.top, self.can.given
        fields: Json = {"prompt_logprobs": top} if way == "prompt_logprobs" else {"echo": True, "logprobs": top}
        data = self._complete([*prompt, *answer], fields | (AS_IDS if self.can.as_ids else {}))
        found = prompt_positions(_choice(data, self.address), data, len(prompt) + len(answer), self.address)
        if found is None:
            what = "told no log-probabilities of a given prompt"
            raise EndpointError(self.address, what, "it did when it was probed")
        part = found[len(prompt) - 1 :]
        given = [replace(p, token=Named(p.token.text, None, t)) for p, t in zip(part, answer, strict=True)]
        told = [self.tokens.id_of(p.token) for p in part]
        if told != list(answer):
            raise EndpointError(self.address, "scored other tokens than it was given", "does it add tokens of its own?")
        return said_of(identity, [_with_own(p, q) for p, q in zip(given, part, strict=True)], self.tokens, self.address)

    def _prefixes(self, prompt: Ids, answer: Ids, identity: str) -> Said:
        positions = [self._next([*prompt, *answer[:t]], token) for t, token in enumerate(answer)]
        return said_of(identity, positions, self.tokens, self.address)

    def _next(self, prefix: list[int], token: int) -> Position:
        """The candidates after a prefix; none where the server shows none however often it draws.

        llama.cpp tells nothing where what it draws is half a character.
        """
        for seed in range(TRIES):
            fields = {"logprobs": self.can.top, "temperature": 1.0, "seed": seed}
            choice = _choice(self._complete(prefix, fields), self.address)
            if choice.get("logprobs"):
                return Position(Named("", None, token), chat_positions(choice, self.address)[0].candidates)
        return Position(Named("", None, token), [])

    def _complete(self, prompt: list[int], fields: Json) -> Json:
        body = {"model": self.name, "prompt": prompt, "max_tokens": 1, "temperature": 1.0, **fields}
        return patiently(partial(self.post, "/completions", body))


def ask_with_signals(
    teacher: ServerTeacher, requests: Sequence[Request], path: Path, settings: CollectPart, *, tick: Tick = lambda: None
) -> Collected:
    """Answers with their signals, each on disk as it comes; see `collect`, whose budgets, tries and failures hold."""
    for request in requests:
        teacher.check(request)
    repair_jsonl(teacher.said)
    return collect(teacher, requests, path, settings, tick=tick)


def fill_from_said(
    teacher: ServerTeacher,
    exchanges: Sequence[Exchange],
    folder: Path,
    *,
    keep: Keep | None = None,
    tick: Tick = lambda: None,
) -> Heard:
    """Put the stored signals of these answers into a cache; continues one that was stopped.

    Raises `EndpointError` where more of the mass than allowed is on tokens that are none of the student's.
    """
    said = {one.id: one for one in read_jsonl(teacher.said, Said)}
    found = [said[e.id] for e in exchanges]
    heard = judged(teacher, found)
    writer, precision = _writer(teacher, exchanges, folder, keep, given="")
    for one in found:
        if not writer.has(one.id):
            writer.add(one.id, rows_of_said(one, precision))
        tick()
    return heard


def fill_given(
    teacher: ServerTeacher,
    exchanges: Sequence[Exchange],
    pair: Callable[[Exchange], tuple[Ids, Ids]],
    folder: Path,
    *,
    keep: Keep | None = None,
    concurrency: int = 16,
    tick: Tick = lambda: None,
) -> Heard:
    """Let the server score given answers, whose (prompt ids, answer ids) `pair` says; continues after any kill.

    Raises `EndpointError` where it scores none.
    """
    if not teacher.can.given:
        hint = "let it answer itself, or learn from the text"
        raise EndpointError(teacher.address, "tells log-probabilities of its own answers only", hint)
    writer, precision = _writer(teacher, exchanges, folder, keep, given=teacher.can.given)
    wanted = [e for e in {e.id: e for e in exchanges}.values() if not writer.has(e.id)]
    found: list[Said] = []
    pool = ThreadPoolExecutor(concurrency)
    try:
        for start in range(0, len(wanted), 4 * concurrency):
            part = wanted[start : start + 4 * concurrency]
            for one in pool.map(lambda e: teacher.scored(*pair(e), e.id), part):
                found.append(one)
                writer.add(one.id, rows_of_said(one, precision))
                tick()
            judged(teacher, found)
    finally:
        pool.shutdown(cancel_futures=True)
    return judged(teacher, found)


def judged(teacher: ServerTeacher, said: Sequence[Said]) -> Heard:
    """What was heard. Raises `EndpointError` where too much of it is on tokens that are none of the student's."""
    tokens, mass = sum(len(s.token_ids) for s in said), sum(s.mass for s in said)
    unmapped = sum(s.unmapped for s in said) / max(mass, 1e-30)
    if unmapped > teacher.max_unmapped:
        what = f"{unmapped:.1%} of the mass it told is on tokens that are none of the student's"
        raise EndpointError(teacher.address, what, f"at most {teacher.max_unmapped:.1%} may be")
    return Heard(answers=len(said), tokens=tokens, told=mass / max(tokens, 1), unmapped=unmapped)


def rows_of_said(said: Said, precision: Precision) -> Rows:
    """A signal as the cache stores it: what is known of the student's tokens; all other mass is the tail's."""
    num, width = len(said.rows), max([1, *map(len, said.rows)])
    ids_TK, levels_TK = np.full((num, width), -1, np.int32), np.zeros((num, width), np.uint8)
    tails = np.empty(num, np.float32)
    for t, row in enumerate(said.rows):
        logprobs = np.array([x for _, x in row], np.float32)
        ids_TK[t, : len(row)] = [i for i, _ in row]
        levels_TK[t, : len(row)] = precision.levels(logprobs)
        tails[t] = np.log(max(1e-30, 1 - float(np.exp(logprobs.astype(np.float64)).sum())))
    counts = np.array([len(row) for row in said.rows], np.int32)
    return Rows(counts, ids_TK, levels_TK, precision.levels(tails), np.array(said.token_ids, np.int32))


def _writer(
    teacher: ServerTeacher, exchanges: Sequence[Exchange], folder: Path, keep: Keep | None, *, given: str
) -> tuple[Writer, Precision]:
    keep = keep or Keep(num=teacher.can.top)
    if keep.mode != "head":
        raise RecipeError("make.signals.kind", "a server tells no tail to draw tokens from", "take 'head'")
    source: Json = {"kind": "server", "model": teacher.name, "top": teacher.can.top, "given": given}
    tokens = teacher.tokens
    manifest = manifest_of(
        teacher.digest, tokenizer_digest(tokens.tokenizer), tokens.vocab, exchanges, keep, seed=0, source=source
    )
    return Writer(folder, manifest, shard_tokens=SHARD_TOKENS), keep.precision


def _choice(data: Json, where: str) -> Json:
    try:
        choice = data["choices"][0]
    except (KeyError, IndexError, TypeError):
        choice = None
    if not isinstance(choice, dict):
        raise EndpointError(where, "answered something else than a completion", "is it OpenAI-compatible?")
    return choice


def _with_own(given: Position, told: Position) -> Position:
    """A position whose token is known by its id; the candidate that is it has the same name."""
    renamed = [(given.token if c == told.token else c, x) for c, x in told.candidates]
    return Position(given.token, renamed)
