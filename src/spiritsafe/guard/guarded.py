"""A model behind the risk control: `guarded:POLICY[~REVIEWER]+MODEL`.

    guarded:default+smollm2                    the policy's own reviewer
    guarded:default~self+smollm2               the guarded model reviews its own dialogues
    guarded:./my.toml~openai:NAME@URL+./dir    a policy file, another model as reviewer

POLICY is a shipped name or a path; neither POLICY nor REVIEWER may hold a `+`, nor POLICY a `~`.
Text of an unflagged query streams as it grows, that of a flagged one only once it is decided.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from spiritsafe.errors import UsageError
from spiritsafe.guard.policy import Policy, load_policy
from spiritsafe.guard.review import Decision, decide, flagging_rules
from spiritsafe.models import open_model
from spiritsafe.models.base import Model, OnExchange, OnText, Request, Scores, exchange_id
from spiritsafe.record import Exchange, digest_of


class GuardedModel:
    """A model whose flagged dialogues are reviewed, and refused where the review says so."""

    def __init__(self, address: str, inner: Model, policy: Policy, reviewer: Model | None) -> None:
        self.address, self.inner, self.policy, self.reviewer = address, inner, policy, reviewer
        self.digest = digest_of([digest_of(policy), reviewer.digest if reviewer else "", inner.digest])

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; a stopped answer is the refusal, with `finish_reason="content_filter"`.

        Flags tell what happened: `flagged:RULE` for each rule, `reviewed:READING`, `stopped`.
        """
        rules = [flagging_rules(self.policy, request.messages) for request in requests]
        inner = self.inner.generate(requests, on_text=_unless_flagged(rules, on_text))
        decisions = decide(self.policy, self.reviewer, inner, rules)
        exchanges = [self._decided(*each) for each in zip(requests, inner, decisions, strict=True)]
        for index, exchange in enumerate(exchanges):
            if on_text and rules[index]:
                on_text(index, exchange.answer)
            if on_exchange:
                on_exchange(exchange)
        return exchanges

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """The inner model's log-probabilities in nats."""
        return self.inner.score(exchanges, top_k=top_k)

    def _decided(self, request: Request, exchange: Exchange, decision: Decision) -> Exchange:
        asked = replace(request, sampling=exchange.sampling)
        update = {
            "id": exchange_id(self.digest, asked),
            "model": self.address,
            "model_digest": self.digest,
            "elapsed_s": exchange.elapsed_s + decision.elapsed_s,
            "cost_usd": exchange.cost_usd + decision.cost_usd,
            "flags": (*exchange.flags, *flags_of(decision)),
        }
        if decision.stopped:
            update |= {"answer": self.policy.refusal, "finish_reason": "content_filter"}
            update |= {"token_ids": None, "logprobs": None}
        return exchange.model_copy(update=update)


def open_guarded(address: str, rest: str, batch: int) -> GuardedModel:
    """Open a `guarded:` address. Raises `UsageError` for a broken address or policy, `ModelError` for its models."""
    head, plus, model_address = rest.partition("+")
    source, _, reviewer_address = head.partition("~")
    if not plus or not source or not model_address:
        raise UsageError(address, "is not a guarded model", "guarded:POLICY[~REVIEWER]+MODEL")
    policy = _with_reviewer(load_policy(source), reviewer_address, address)
    inner = open_model(model_address, batch=batch)
    return GuardedModel(address, inner, policy, _reviewer(policy, inner, model_address, batch))


def flags_of(decision: Decision) -> tuple[str, ...]:
    """A decision as an exchange's flags."""
    reviewed = (f"reviewed:{decision.reading}",) if decision.reading else ()
    return (*(f"flagged:{name}" for name in decision.rules), *reviewed, *(("stopped",) if decision.stopped else ()))


def _with_reviewer(policy: Policy, reviewer: str, address: str) -> Policy:
    if reviewer and policy.decide == "patterns":
        raise UsageError(address, f"policy '{policy.name}' asks no reviewer", "leave ~REVIEWER out")
    named = policy.model_copy(update={"reviewer": reviewer}) if reviewer else policy
    if named.decide == "reviewer" and not named.reviewer:
        raise UsageError(address, f"policy '{policy.name}' names no reviewer", "guarded:POLICY~REVIEWER+MODEL")
    return named


def _reviewer(policy: Policy, inner: Model, model_address: str, batch: int) -> Model | None:
    if policy.decide == "patterns":
        return None
    if policy.reviewer in ("self", model_address):
        return inner
    return open_model(policy.reviewer, batch=batch)


def _unless_flagged(rules: Sequence[tuple[str, ...]], on_text: OnText | None) -> Callable[[int, str], None] | None:
    if on_text is None:
        return None

    def pass_on(index: int, piece: str) -> None:
        if not rules[index]:
            on_text(index, piece)

    return pass_on
