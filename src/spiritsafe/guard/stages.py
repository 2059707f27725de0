"""What the stages of a policy find in a text: pure and cheap, so that decisions are replayed over stored exchanges.

Rules look first, heads only where no rule has flagged. Every finding says which stage and rule, with which score
against which limit, and what of the text it rests on. A head's score is that of its linear model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from spiritsafe.guard.heads.score import Scored, Scorer
from spiritsafe.guard.match import Matcher, matcher, of_pattern, of_phrase
from spiritsafe.guard.policy import Policy
from spiritsafe.guard.views import views_of
from spiritsafe.record import Message

Side = Literal["input", "output"]
Action = Literal["note", "flag", "stop"]
SIDES: tuple[Side, Side] = ("input", "output")
TOO_LONG = "too-long"


@dataclass(frozen=True)
class Finding:
    """One thing that a stage found. `score` is at least `limit`; `evidence` is the pattern that occurs.

    `start` and `end` say which characters of the text as it was read it rests on most; all of it if they are equal.
    """

    side: Side
    stage: Literal["length", "rules", "linear", "encoder"]
    rule: str
    action: Action
    score: float = 1.0
    limit: float = 1.0
    evidence: str = ""
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Look:
    """All that the stages found in one text, in the stages' order, and how long each looked, in seconds."""

    findings: tuple[Finding, ...] = ()
    elapsed_s: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def action(self) -> Literal["pass", "flag", "stop"]:
        """The strongest action of the findings; notes pass."""
        actions = {finding.action for finding in self.findings}
        return "stop" if "stop" in actions else "flag" if "flag" in actions else "pass"


class Stages:
    """The stages of one policy, made ready."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._rules = {side: _Rules(policy, side) for side in SIDES}
        self._heads = {side: _scorer(policy, side) for side in SIDES}

    def look(self, text: str, side: Side) -> Look:
        """What the stages find in a query or an answer."""
        return self.look_all([text], side)[0]

    def look_all(self, texts: Sequence[str], side: Side) -> list[Look]:
        """What they find in each of many; the seconds are the mean over those that a stage looked at."""
        if not texts:
            return []
        started_s = time.perf_counter()
        read = [self._cut(text) for text in texts]
        readings = views_of(read)
        found = [
            (*self._too_long(text, side), *self._rules[side].find(views))
            for text, views in zip(texts, readings, strict=True)
        ]
        now_s = time.perf_counter()
        looks = [Look(each, {"rules": (now_s - started_s) / len(texts)}) for each in found]
        heads = self._heads[side]
        open_ones = [i for i, look in enumerate(looks) if look.action == "pass"] if heads else []
        more = heads.score_texts([read[i] for i in open_ones], [readings[i] for i in open_ones])
        each_s = (time.perf_counter() - now_s) / max(1, len(open_ones))
        for i, scored in zip(open_ones, more, strict=True):
            findings = (*looks[i].findings, *self._of_heads(scored, side))
            looks[i] = Look(findings, looks[i].elapsed_s | {scored.stage: each_s})
        return looks

    def _of_heads(self, scored: Scored, side: Side) -> list[Finding]:
        heads = self.policy.heads
        return [
            Finding(side, hit.stage, hit.head, heads[hit.head].action, hit.score, hit.limit, "", *hit.span)
            for hit in scored.hits
        ]

    def _cut(self, text: str) -> str:
        limit = self.policy.max_chars
        return text if len(text) <= limit else f"{text[: limit // 2]} {text[-(limit // 2) :]}"

    def _too_long(self, text: str, side: Side) -> tuple[Finding, ...]:
        limit = self.policy.max_chars
        return (Finding(side, "length", TOO_LONG, "flag", len(text), limit),) if len(text) > limit else ()


def query_of(messages: Sequence[Message]) -> str:
    """What is read of a dialogue's input: the user's turns."""
    return " \n ".join(message.content for message in messages if message.role == "user")


class _Rules:
    """The rules of one side, as one matcher; a rule is found once, by the first of its patterns."""

    def __init__(self, policy: Policy, side: Side) -> None:
        self._side: Side = side
        self._policy = policy
        pairs = [
            pair for name, rule in policy.rules.items() if rule.on in (side, "both") for pair in _pairs(name, policy)
        ]
        self._owners = [(name, source) for name, source, _ in pairs]
        self._matcher: Matcher = matcher(tuple(expression for _, _, expression in pairs))

    def find(self, texts: Sequence[str]) -> list[Finding]:
        hits = sorted({index for text in texts for index in self._matcher.find(text)})
        first: dict[str, str] = {}
        for index in hits:
            name, source = self._owners[index]
            first.setdefault(name, source)
        rules = self._policy.rules
        return [
            Finding(self._side, "rules", name, rules[name].action, evidence=source) for name, source in first.items()
        ]


def _scorer(policy: Policy, side: Side) -> Scorer:
    limits = {name: head.limit for name, head in policy.heads.items() if head.on in (side, "both")}
    return Scorer(policy.heads_from, limits, encoder=policy.encoder)


def _pairs(name: str, policy: Policy) -> list[tuple[str, str, str]]:
    rule = policy.rules[name]
    phrases = [(name, phrase, of_phrase(phrase)) for phrase in rule.phrases]
    return [*phrases, *((name, pattern, of_pattern(pattern)) for pattern in rule.patterns)]


@lru_cache(maxsize=16)
def _stages(policy_json: str) -> Stages:
    return Stages(Policy.model_validate_json(policy_json))


def stages_of(policy: Policy) -> Stages:
    """The stages of a policy; equal policies share them."""
    return _stages(policy.model_dump_json())
