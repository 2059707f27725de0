"""A teacher's answers, each on disk as it comes: what is stored is not asked again, whatever was killed when.

`NAME.failures` beside `NAME.jsonl` holds the requests that stayed unanswered. Those a server refused for
good are not asked again either; the others are, by the next attempt.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pydantic import Field

from spiritsafe.errors import EndpointError
from spiritsafe.make.data.settings import CollectPart
from spiritsafe.models.base import Model, Request, exchange_id
from spiritsafe.models.budget import Meter
from spiritsafe.models.endpoint import EndpointModel
from spiritsafe.models.fan import Fan
from spiritsafe.models.many import answer_all
from spiritsafe.progress import Tick, warn
from spiritsafe.record import Exchange, Record, append_jsonl, read_jsonl, repair_jsonl

# So many failures are needed before their share says anything while more is to come.
EARLY = 20
SHOWN = 20


class Failure(Record):
    """A request that stayed unanswered; `passing` where it is worth another attempt.

    `unfit` is one that a model of this process cannot read, e.g. a prompt beyond its context: the prompt's own fault.
    """

    id: str
    error: str
    passing: bool
    at_s: float
    unfit: bool = False


class Collected(Record):
    """What is stored of the answers wanted. `stopped` says which part of the budget ended it; "": nothing did.

    `uncounted` answers came without counts of tokens and are counted as one token a byte.
    `unanswered` holds the first requests without an answer, by id, with the reason.
    """

    wanted: int
    answered: int
    failed: int
    asked: int
    tokens_in: int
    tokens_out: int
    usd: float
    seconds: float
    stopped: str
    errors: dict[str, int]
    uncounted: int = 0
    unanswered: dict[str, str] = Field(default_factory=dict)


def collect(
    model: Model | Fan, requests: Sequence[Request], path: Path, settings: CollectPart, *, tick: Tick = lambda: None
) -> Collected:
    """Answer those of the requests that `path` does not hold yet; equal ones once.

    Raises `EndpointError` where more than the stated share stays unanswered; what was answered is kept.
    """
    for file in (path, _failures(path)):
        repair_jsonl(file)
    work = _Work(model.digest, settings, path, tick, local=not isinstance(model, EndpointModel | Fan))
    work.resume({exchange_id(model.digest, r): r for r in requests})
    if isinstance(model, Fan):
        model.answer_all(work.take, work.keep, ends_s=work.meter.ends_s)
    else:
        work.left += answer_all(
            model,
            work.take,
            work.keep,
            concurrency=settings.concurrency,
            tries=settings.tries,
            timeout_s=settings.timeout_s,
            ends_s=work.meter.ends_s,
        )
    return work.done(model.address)


def stored(path: Path, model_digest: str, requests: Sequence[Request]) -> list[Exchange]:
    """The stored answers of these requests, in their order; those not stored are left out."""
    held = {e.id: e for e in read_jsonl(path, Exchange) if e.model_digest == model_digest}
    ids = dict.fromkeys(exchange_id(model_digest, r) for r in requests)
    return [held[i] for i in ids if i in held]


def _failures(path: Path) -> Path:
    return path.with_suffix(".failures")  # not *.jsonl: it holds no exchanges


@dataclass
class _Work:
    """What is left to ask, and what has come of it so far."""

    digest: str
    settings: CollectPart
    path: Path
    tick: Tick
    local: bool
    meter: Meter = field(init=False)
    wanted: int = 0
    answered: int = 0
    asked: int = 0
    left: deque[Request] = field(default_factory=deque)
    failed: dict[str, str] = field(default_factory=dict)
    unfit: set[str] = field(default_factory=set)
    refusal: str = ""

    def __post_init__(self) -> None:
        self.meter = Meter(self.settings.budget)

    def resume(self, wanted: dict[str, Request]) -> None:
        """Leave out what is stored, and what was refused for good."""
        held = {e.id: e for e in read_jsonl(self.path, Exchange) if e.id in wanted}
        for exchange in held.values():
            self.meter.count(exchange)
        old = read_jsonl(_failures(self.path), Failure)
        known = [f for f in old if f.id in wanted and f.id not in held and not f.passing]
        self.failed = {f.id: f.error for f in known}
        self.unfit = {f.id for f in known if f.unfit}
        self.wanted, self.answered = len(wanted), len(held)
        self.left = deque(r for i, r in wanted.items() if i not in held and i not in self.failed)
        for _ in range(self.wanted - len(self.left)):
            self.tick()

    def take(self, most: int) -> list[Request]:
        """Up to `most` requests that the budget allows."""
        part: list[Request] = []
        while self.left and len(part) < most:
            self.refusal = self.meter.admit(self.left[0])
            if self.refusal:
                break
            part.append(self.left.popleft())
        self.asked += len(part)
        return part

    def keep(self, result: Exchange) -> None:
        """Store a result at once."""
        self.meter.settle(result)
        if result.error_kind:
            self._fail(result)
            return
        self.tick()
        price = self.meter.count(result)
        append_jsonl(self.path, [result.model_copy(update={"cost_usd": result.cost_usd + price})])
        self.answered += 1

    def done(self, address: str) -> Collected:
        """The sum of it. Raises `EndpointError` where too much failed."""
        self._judge(address, self.wanted)
        if self.meter.uncounted:
            warn(
                f"{address}: {self.meter.uncounted} answers came without counts of tokens: one token a byte is counted"
            )
        return Collected(
            wanted=self.wanted,
            answered=self.answered,
            failed=len(self.failed),
            asked=self.asked,
            tokens_in=self.meter.spent.tokens_in,
            tokens_out=self.meter.spent.tokens_out,
            usd=self.meter.spent.usd,
            seconds=time.monotonic() - self.meter.started_s,
            stopped=self.refusal if self.left else "",
            errors=dict(Counter(self.failed.values()).most_common(SHOWN)),
            uncounted=self.meter.uncounted,
            unanswered=dict(islice(self.failed.items(), SHOWN)),
        )

    def _fail(self, result: Exchange) -> None:
        self.tick()
        passing = result.error_kind == "passing"
        unfit = self.local and result.error_kind == "request"
        failure = Failure(id=result.id, error=result.error, passing=passing, at_s=time.time(), unfit=unfit)
        append_jsonl(_failures(self.path), [failure])
        self.failed[result.id] = result.error
        if unfit:
            self.unfit.add(result.id)
        elif len(self.failed) - len(self.unfit) >= EARLY:
            self._judge(str(self.path), len(self.failed) - len(self.unfit) + self.answered)

    def _judge(self, where: str, of: int) -> None:
        """What the prompts themselves are at fault for is left out and named; the others are the teacher's failures."""
        errors = [error for i, error in self.failed.items() if i not in self.unfit]
        if len(errors) <= self.settings.max_failed * of:
            return
        error, times = Counter(errors).most_common(1)[0]
        what = f"{len(errors)} of {of} requests stayed unanswered, {times} of them: {error}"
        raise EndpointError(where, what, "mend it or raise max_failed; what was answered is kept")
