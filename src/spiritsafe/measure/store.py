"""Exchanges kept by content: an answer is found again by model digest, prompt, settings and seed.

One JSONL file a model. Each answer is on disk before the next is counted, so a killed process loses at
most the answers that were under way.
"""

import fcntl
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from spiritsafe import threads
from spiritsafe.errors import EndpointError, ModelError, RunError, writing
from spiritsafe.models.base import Model, OnExchange, OnText, Request, Scores, exchange_id, told
from spiritsafe.models.budget import Meter, is_free
from spiritsafe.models.endpoint import EndpointModel
from spiritsafe.models.many import answer_all
from spiritsafe.progress import Tick
from spiritsafe.record import (
    Exchange,
    Record,
    append_jsonl,
    digest_of,
    read_json,
    read_jsonl,
    repair_jsonl,
    write_json,
)

CHUNK = 64
COMPUTED = "computed.json"
# So many requests in a row without an answer: the server is down, not the requests.
SILENT = 20


class BudgetSpent(RunError):
    """The budget is spent; what was answered is stored, and the same command with a larger one goes on."""


@contextmanager
def locked(folder: Path) -> Iterator[list[str]]:
    """Hold a folder against a second process; yields warnings: what a killed one left and was mended,
    and what the answers that are there were computed with, if it is not what this process computes with.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunError(str(folder), "is in use by another process", "wait for it or stop it") from None
    with lock:
        try:
            yield [w for w in (*map(repair_jsonl, sorted(folder.rglob("*.jsonl"))), _also_computed(folder)) if w]
        finally:
            _note_computed(folder, computed_in(folder))  # with what decoded meanwhile


def computed_in(folder: Path) -> list[dict[str, Any]]:
    """With what the processes that measured in a folder computed (`threads.computed`), each once."""
    path = folder / COMPUTED
    return list(read_json(path)["computed"]) if path.is_file() else []


def _also_computed(folder: Path) -> str:
    """Note what this process computes with; how it differs from the process before, in a line."""
    before, now = computed_in(folder), threads.computed()
    if any(threads.says(known, now) for known in before):
        return ""
    _note_computed(folder, before)
    changed = threads.difference(before[-1], now) if before else ""
    what = f"answers in {folder} were computed with other settings: {changed}; verdicts.json names all"
    return what if changed else ""


def _note_computed(folder: Path, before: Sequence[Mapping[str, Any]]) -> None:
    """Add what this process computes with, in place of what it said less of."""
    now = threads.computed()
    if not any(threads.says(known, now) for known in before):
        others = [known for known in before if not threads.says(now, known)]
        write_json(folder / COMPUTED, {"version": 1, "computed": [*others, now]})


Failed = dict[str, Exchange]


def answers(
    folder: Path, model: Model, requests: Sequence[Request], *, meter: Meter, tick: Tick, failed: Failed | None = None
) -> list[Exchange]:
    """The answers to `requests`, in order: stored ones again, the others generated and stored, equal ones once.

    A request that is refused for good is stored as such; one that failed for a while is asked again by the next
    command, and not again by this one, which keeps it in `failed`. Raises `BudgetSpent` after the answer that reaches
    a bound, and `EndpointError` for a server that is down.
    """
    asking = Asking(folder, model, requests, meter=meter, tick=tick, failed=failed)
    asking.left += answer_all(
        model, asking.take, asking.keep, concurrency=getattr(model, "batch", CHUNK), ends_s=meter.ends_s
    )
    asking.check()
    return asking.found()


class Asking:
    """What the store lacks of one model's answers, handed out as the budget allows, and stored as they come."""

    def __init__(
        self,
        folder: Path,
        model: Model,
        requests: Sequence[Request],
        *,
        meter: Meter,
        tick: Tick,
        failed: Failed | None = None,
    ) -> None:
        self.model, self.meter, self._tick = model, meter, tick
        self._free, self._served = is_free(model.address), isinstance(model, EndpointModel)
        self._path, self._held = exchanges_of(folder, model)
        self._keys = [_key(model, r) for r in requests]
        wanted = dict(zip(self._keys, requests, strict=True))
        self._failed = {} if failed is None else failed
        known = {*self._held, *self._failed}
        self.left = deque(sorted((r for key, r in wanted.items() if key not in known), key=_length))
        self._under_way = 0
        self._silent: list[Exchange] = []
        self._answers = any(not self._held[key].error_kind for key in wanted if key in self._held)
        self._refusal = ""
        for _ in range(len(requests) - len(self.left)):
            tick()

    def take(self, most: int) -> list[Request]:
        """Up to `most` requests that the budget allows; none to a server that is down."""
        part: list[Request] = []
        while self.left and len(part) < most and len(self._silent) < SILENT:
            self._refusal = self.meter.admit(self.left[0], free=self._free)
            if self._refusal:
                break
            part.append(self.left.popleft())
        self._under_way += len(part)
        return part

    def keep(self, exchange: Exchange) -> None:
        """Store a result at once; what failed for a while is not stored."""
        self._under_way -= 1
        self.meter.settle(exchange, free=self._free)
        price = self.meter.count(exchange, free=self._free)
        key = _key(self.model, exchange)
        self._tick()
        if exchange.error_kind == "passing":
            self._failed[key] = exchange
            self._silent.append(exchange)
            return
        paid = exchange.model_copy(update={"cost_usd": exchange.cost_usd + price}) if price else exchange
        append_jsonl(self._path, [paid])
        self._held[key] = paid
        self._answers = self._answers or not exchange.error_kind
        # A server that refused all so far is asked wrongly; later, some prompts may be too long for it.
        if exchange.error_kind in ("request", "model") and not self._answers:
            self._silent.append(exchange)
        else:
            self._silent.clear()
        # What a server has under way is paid for and waited for; a batch in this process is not.
        if not self._served and (self.left or self._under_way) and self.meter.is_late():
            raise spent(self.meter.refusal_of_time())

    def check(self) -> None:
        """Raise what ended the asking before all was asked."""
        if len(self._silent) >= SILENT:
            what = f"left {len(self._silent)} requests in a row without an answer, the last: {self._silent[-1].error}"
            raise EndpointError(self.model.address, what, "what was answered is stored; the same command goes on")
        if self.left and self._refusal:
            raise spent(self._refusal)
        if self.left:
            raise spent(self.meter.refusal_of_time())

    def found(self) -> list[Exchange]:
        """All exchanges, in the order of the requests."""
        return [self._held.get(key) or self._failed[key] for key in self._keys]


def spent(refusal: str) -> BudgetSpent:
    """The error for a meter's refusal."""
    name, _, what = refusal.partition(": ")
    return BudgetSpent(f"--max-{name}", what, "raise it; stored answers are kept")


def exchanges_of(folder: Path, model: Model) -> tuple[Path, dict[str, Exchange]]:
    """A model's file and what it holds, by content address."""
    path = folder / "exchanges" / f"{model.digest[:16]}.jsonl"
    return path, {_key(model, e): e for e in read_jsonl(path, Exchange) if e.error_kind != "passing"}


class Likelihood(Record):
    """The log-likelihood in nats of one answer to one prompt, by its content address."""

    version: Literal[1] = 1
    key: str
    logprob: float


def likelihoods(
    folder: Path, model: Model, choices: Sequence[Exchange], *, meter: Meter, tick: Tick
) -> list[float | None]:
    """Log-likelihoods of given answers, in order: stored ones again, the others scored and stored.

    None where the model cannot say it of this one, which is longer than its context. Raises `BudgetSpent` between
    chunks of 64, and `ModelError` if the model says it of none.
    """
    path = folder / "likelihoods" / f"{model.digest[:16]}.jsonl"
    held: dict[str, float | None] = {found.key: found.logprob for found in read_jsonl(path, Likelihood)}
    keys = [digest_of([_key(model, c), c.answer])[:32] for c in choices]
    wanted = dict(zip(keys, choices, strict=True))
    missing = [(key, choice) for key, choice in wanted.items() if key not in held]
    for _ in range(len(choices) - len(missing)):
        tick()
    for start in range(0, len(missing), CHUNK):
        if meter.is_late():
            raise spent(meter.refusal_of_time())
        part = missing[start : start + CHUNK]
        said = _likelihoods(model, [choice for _, choice in part])
        found = [Likelihood(key=k, logprob=x) for (k, _), x in zip(part, said, strict=True) if x is not None]
        append_jsonl(path, found)
        held.update((key, x) for (key, _), x in zip(part, said, strict=True))
        for _ in part:
            tick()
    return [held[key] for key in keys]


def _likelihoods(model: Model, choices: Sequence[Exchange]) -> list[float | None]:
    """One at a time where all together fail: one choice beyond the context must not take the others along."""
    try:
        return [sum(s.logprobs) for s in model.score(choices)]
    except ModelError:
        if len(choices) == 1:
            raise
    said: list[float | None] = []
    for choice in choices:
        try:
            said += _likelihoods(model, [choice])
        except ModelError as error:
            last = error
            said.append(None)
    if not any(x is not None for x in said):
        raise last
    return said


class Stored:
    """A model that answers from the store where it can; what it must generate is stored at once.

    `given` holds every answer it gave, with the seconds that its generation once took; what is in `failed` is not
    asked again.
    """

    def __init__(self, folder: Path, inner: Model, meter: Meter, failed: Failed | None = None) -> None:
        self.inner, self.address, self.digest = inner, inner.address, inner.digest
        self._folder, self._meter, self._failed = folder, meter, {} if failed is None else failed
        self.given: list[Exchange] = []

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; see `spiritsafe.models.Model`."""
        found = answers(self._folder, self.inner, requests, meter=self._meter, tick=lambda: None, failed=self._failed)
        self.given += found
        return told(found, on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The inner model's log-probabilities in nats."""
        return self.inner.score(exchanges, top_k=top_k)


def _length(request: Request) -> int:
    """Prompts of like length go together: a batch is padded to its longest."""
    return sum(len(m.content) for m in request.messages)


def _key(model: Model, item: Request | Exchange) -> str:
    """The content address; an exchange's own id may be that of a model behind a guard."""
    return exchange_id(model.digest, Request(item.messages, item.sampling, item.open_turn, item.account))
