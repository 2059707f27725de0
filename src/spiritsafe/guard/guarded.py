"""A model behind the risk control: `guarded:POLICY[@CHECK][~REVIEWER]+MODEL`.

    guarded:default+smollm2                    the policy's own reviewer
    guarded:default~self+smollm2               the guarded model reviews its own dialogues
    guarded:./my.toml@output+smollm2           another side: input, output, both, if a rule or head reads it; or shadow
    guarded:./my.toml~openai:NAME@URL+./dir    a policy file, read anew when it changes; another reviewer

POLICY is a shipped name or a path; neither POLICY nor REVIEWER may hold a `+`, nor POLICY a `~` or an `@`.
Text of an unflagged query streams as it grows. That of a flagged one, and all text if the policy reads answers,
is held until it is decided: what is stopped is never sent. In shadow nothing is held.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast, get_args

from spiritsafe.errors import UsageError
from spiritsafe.guard.batcher import way_of
from spiritsafe.guard.control import Control, Decision
from spiritsafe.guard.policy import Check, Policy, PolicySource, checking
from spiritsafe.guard.stages import stages_of
from spiritsafe.models import open_model
from spiritsafe.models.base import Model, OnExchange, OnText, Request, Scores, exchange_id
from spiritsafe.record import Exchange, digest_of

# The stages keep working memory of their own: one thread reads at a time.
READING = threading.Lock()


class GuardedModel:
    """A model whose dialogues a policy reads, and refuses where the policy says so.

    `policy` is a policy, or a function that gives the one that holds now; `digest` is of policy, reviewer and
    model together, as they were at the last call.
    """

    def __init__(
        self, address: str, inner: Model, policy: Policy | Callable[[], Policy], reviewer: Model | None
    ) -> None:
        self.address = address
        self.inner = inner
        self.reviewer = reviewer
        self._now: Callable[[], Policy] = (lambda: policy) if isinstance(policy, Policy) else policy
        self.digest = self._digest(self.policy)

    @property
    def reviewer(self) -> Model | None:
        """The model that is asked about what was flagged; another may take its place."""
        return self._reviewer

    @reviewer.setter
    def reviewer(self, reviewer: Model | None) -> None:
        """Another reviewer, or none."""
        self._reviewer = reviewer
        self._aside = _Aside(reviewer) if reviewer else None

    @property
    def threads(self) -> int:
        """How many threads may call it at once: as many as the guarded model says."""
        return way_of(self.inner).threads

    @property
    def alone(self) -> bool:
        """Whether it gains nothing from many requests in one call."""
        return way_of(self.inner).alone

    @property
    def gives_logprobs(self) -> bool:
        """Whether the guarded model says that it has log-probabilities, or does not say."""
        return bool(getattr(self.inner, "gives_logprobs", True))

    @property
    def check(self) -> Callable[[Request], str] | None:
        """Why the guarded model could not answer a request, if it can say that."""
        check: Callable[[Request], str] | None = getattr(self.inner, "check", None)
        return check

    @property
    def policy(self) -> Policy:
        """The policy that holds now."""
        return self._now()

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; a stopped answer is the refusal, with `finish_reason="content_filter"`.

        Flags tell what happened: `flagged:RULE` for each rule, `reviewed:READING`, `stopped` and, where the
        answer was there, `retracted`; `shadow` where a policy in shadow would have stopped.
        """
        policy = self.policy
        digest = self._digest(policy)
        control = Control(policy, self._aside if policy.decide == "reviewer" else None)
        with READING:
            looks = control.look_in([request.messages for request in requests])
        asked = [i for i, look in enumerate(looks) if not control.settles(look)]
        reads_answers = policy.check != "input"
        held = [(look.action != "pass" or reads_answers) and not policy.shadow for look in looks]
        answers = self.inner.generate([requests[i] for i in asked], on_text=_unless_held(asked, held, on_text))
        inner = dict(zip(asked, answers, strict=True))
        found = [inner.get(i) or self._unasked(request) for i, request in enumerate(requests)]
        answered = [i for i, exchange in enumerate(found) if not exchange.error_kind]
        with READING:
            decisions = control.decide([found[i] for i in answered], [looks[i] for i in answered])
        decided = dict(zip(answered, decisions, strict=True))
        self.digest = digest
        exchanges = [
            self._decided(policy, digest, request, found[i], decided.get(i, Decision()))
            for i, request in enumerate(requests)
        ]
        for index, exchange in enumerate(exchanges):
            if on_text and held[index] and not exchange.error_kind:
                on_text(index, exchange.answer)
            if on_exchange:
                on_exchange(exchange)
        return exchanges

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The inner model's log-probabilities in nats."""
        return self.inner.score(exchanges, top_k=top_k)

    def _digest(self, policy: Policy) -> str:
        return digest_of([digest_of(policy), self.reviewer.digest if self.reviewer else "", self.inner.digest])

    def _unasked(self, request: Request) -> Exchange:
        """What stands for the answer of a model that was not asked."""
        return Exchange(
            id="", account=request.account, model=self.address, model_digest="", messages=request.messages,
            open_turn=request.open_turn, sampling=request.sampling, answer="", started_at_s=time.time(),
        )  # fmt: skip

    def _decided(
        self, policy: Policy, digest: str, request: Request, exchange: Exchange, decision: Decision
    ) -> Exchange:
        asked = replace(request, sampling=exchange.sampling)
        update: dict[str, Any] = {
            "id": exchange_id(digest, asked),
            "model": self.address,
            "model_digest": digest,
            "elapsed_s": exchange.elapsed_s + sum(seconds for _, seconds in decision.elapsed_s),
            "cost_usd": exchange.cost_usd + decision.cost_usd,
            "flags": (*exchange.flags, *decision.flags),
        }
        if decision.stopped:
            update |= {"answer": decision.refusal, "finish_reason": "content_filter"}
            update |= {"token_ids": None, "logprobs": None}
        return exchange.model_copy(update=update)


class _Aside:
    """A reviewer that is asked while others read, by as many threads as may call it."""

    def __init__(self, reviewer: Model) -> None:
        self.address, self.digest, self._reviewer = reviewer.address, reviewer.digest, reviewer
        self._free = threading.Semaphore(way_of(reviewer).threads)

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        READING.release()
        try:
            with self._free:
                return self._reviewer.generate(requests, on_exchange=on_exchange, on_text=on_text)
        finally:
            READING.acquire()

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        return self._reviewer.score(exchanges, top_k=top_k)


def open_guarded(address: str, rest: str, batch: int) -> GuardedModel:
    """Open a `guarded:` address. Raises `UsageError` for a broken address or policy, `ModelError` for its models."""
    head, plus, model_address = rest.partition("+")
    named, _, reviewer_address = head.partition("~")
    name, at, check = named.partition("@")
    if not plus or not name or not model_address:
        raise UsageError(address, "is not a guarded model", "guarded:POLICY[@CHECK][~REVIEWER]+MODEL")
    if at and check not in (*get_args(Check), "shadow"):
        raise UsageError(address, f"no side '{check}'", f"{', '.join(get_args(Check))} or shadow")
    source = PolicySource(name, partial(_ready, check, address))
    policy = _with_reviewer(source.current(), reviewer_address, address)
    inner = open_model(model_address, batch=batch)
    now = partial(_adapted, source, policy.reviewer)
    return GuardedModel(address, inner, now, _reviewer(policy, inner, model_address, batch))


def _ready(check: str, address: str, policy: Policy) -> Policy:
    """The policy on the address's side, its stages made now, so that no request waits for them or fails by them."""
    if check == "shadow":
        policy = policy.model_copy(update={"shadow": True})
    elif check:
        policy = checking(policy, cast(Check, check), address)
    stages_of(policy)
    return policy


def _adapted(source: PolicySource, reviewer: str) -> Policy:
    """The source's policy; the reviewer stays the one that was opened."""
    policy = source.current()
    return policy.model_copy(update={"reviewer": reviewer}) if policy.decide == "reviewer" else policy


def _with_reviewer(policy: Policy, reviewer: str, address: str) -> Policy:
    if reviewer and policy.decide == "stages":
        raise UsageError(address, f"policy '{policy.name}' asks no reviewer", "leave ~REVIEWER out")
    named = policy.model_copy(update={"reviewer": reviewer}) if reviewer else policy
    if named.decide == "reviewer" and not named.reviewer:
        raise UsageError(address, f"policy '{policy.name}' names no reviewer", "guarded:POLICY~REVIEWER+MODEL")
    return named


def _reviewer(policy: Policy, inner: Model, model_address: str, batch: int) -> Model | None:
    if policy.decide == "stages":
        return None
    if policy.reviewer in ("self", model_address):
        return inner
    return open_model(policy.reviewer, batch=batch)


def _unless_held(asked: Sequence[int], held: Sequence[bool], on_text: OnText | None) -> OnText | None:
    if on_text is None:
        return None

    def pass_on(index: int, piece: str) -> None:
        if not held[asked[index]]:
            on_text(asked[index], piece)

    return pass_on
