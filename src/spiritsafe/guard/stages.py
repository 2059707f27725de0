"""What the stages of a policy find in a text: pure and cheap, so that decisions are replayed over stored exchanges.

Rules look first, heads only where no rule has flagged. Every finding says which stage and rule, with which score
against which limit, and what of the text it rests on. A head's score is that of its linear model.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads.heads import Heads, open_heads
from spiritsafe.guard.heads.language import tongue_of
from spiritsafe.guard.heads.second import Second
from spiritsafe.guard.match import Matcher, matcher, of_pattern, of_phrase
from spiritsafe.guard.normal import normalise
from spiritsafe.guard.policy import Policy
from spiritsafe.guard.views import views_of
from spiritsafe.record import Message

Side = Literal["input", "output"]
Action = Literal["note", "flag", "stop"]
SIDES: tuple[Side, Side] = ("input", "output")
TOO_LONG = "too-long"


@dataclass(frozen=True)
class Finding:
    """One thing that a stage found. `score` is at least `limit`; `evidence` is the pattern that occurs."""

    side: Side
    stage: Literal["length", "rules", "linear", "encoder"]
    rule: str
    action: Action
    score: float = 1.0
    limit: float = 1.0
    evidence: str = ""


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
        self._heads = {side: _Heads(policy, side) for side in SIDES}

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
        open_ones = [i for i, look in enumerate(looks) if look.action == "pass"] if self._heads[side].heads else []
        more = self._heads[side].find([read[i] for i in open_ones], [readings[i] for i in open_ones])
        each_s = (time.perf_counter() - now_s) / max(1, len(open_ones))
        for i, (findings, stage) in zip(open_ones, more, strict=True):
            looks[i] = Look((*looks[i].findings, *findings), looks[i].elapsed_s | {stage: each_s})
        return looks

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


class _Heads:
    """The heads of one side: the linear ones, and the encoder's for what they do not clear."""

    def __init__(self, policy: Policy, side: Side) -> None:
        self._side: Side = side
        self._policy = policy
        self.heads = {name: head for name, head in policy.heads.items() if head.on in (side, "both")}
        self._opened = open_heads(policy.heads_from) if self.heads else None

    def find(
        self, texts: Sequence[str], readings: Sequence[Sequence[str]]
    ) -> list[tuple[list[Finding], Literal["linear", "encoder"]]]:
        """What is found in each text with its readings, and the last stage that looked."""
        opened = self._opened
        if opened is None or not texts:
            return []
        firsts = opened.scores_of(readings)
        if not self._policy.encoder or opened.second is None:
            return [(self._above("linear", "limit", scores, opened.names), "linear") for scores in firsts.tolist()]
        return [self._with_encoder(opened, opened.second, *each) for each in zip(texts, readings, firsts, strict=True)]

    def _with_encoder(
        self, opened: Heads, encoder: Second, text: str, texts: Sequence[str], firsts: NDArray[np.float32]
    ) -> tuple[list[Finding], Literal["linear", "encoder"]]:
        tongue = tongue_of(texts[0])
        first, second = firsts.tolist(), opened.by_encoder
        found = self._above("linear", "limit", first, [name for name in self.heads if name not in second])
        clear = all(
            score < opened.limits[name]["clear"]
            for name, score in zip(opened.names, first, strict=True)
            if name in second
        )
        if tongue == "english" and clear:
            return found, "linear"
        hidden = opened.scores(texts[1:]).tolist() if len(texts) > 1 else [-math.inf] * len(first)
        if more := self._above("linear", "limit", hidden, second):
            return [*found, *more], "linear"
        scores = encoder.scores(normalise(text), firsts.astype(float), is_english=tongue == "english")
        return [*found, *self._above("encoder", tongue, scores.tolist(), second)], "encoder"

    def _above(
        self, stage: Literal["linear", "encoder"], kind: str, scores: Sequence[float], names: Sequence[str]
    ) -> list[Finding]:
        assert self._opened
        found = []
        for name, head in ((name, head) for name, head in self.heads.items() if name in names):
            score = scores[self._opened.names.index(name)]
            own = self._opened.limit_of(name, scores) if kind == "limit" else self._opened.limits[name][kind]
            limit = own if head.limit is None else head.limit
            if score >= limit:
                found.append(Finding(self._side, stage, name, head.action, score, limit))
        return found


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
