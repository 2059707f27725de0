"""What the stages of a policy find in a dialogue: pure and cheap, so decisions are replayed over stored exchanges.

Each turn is read, whatever its role, and the turns joined; what a disguise hides is read as a text of its own. Rules
look first, heads only if no rule has flagged, then the control of answers: it reads an answer with what was asked.
Every finding says which stage and rule, with which score against which limit, and what of the text it rests on. A
head's score is that of its linear model.
"""

import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Literal

from spiritsafe.guard.ciphers import Lexicon
from spiritsafe.guard.heads.answers import Said, open_answers
from spiritsafe.guard.heads.score import Scored, Scorer
from spiritsafe.guard.match import Matcher, matcher, of_pattern, of_phrase
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.guard.policy import SIDES, Policy, Rule, Side, load_policy
from spiritsafe.guard.turns import Dialogue, alone, cut, joined, size_of
from spiritsafe.guard.views import Read, Reader

Action = Literal["note", "flag", "stop"]
TOO_LONG, UNREADABLE, NOT_READ, ANSWER = "too-long", "unreadable", "not-read", "answer"
JOINED, RUN_ON = "joined", "run on"  # the turns with blanks between, and without
CONTEXT_CHARS = 300  # before and after a place that a reviewer is shown: a few sentences
_SENTENCE_END = re.compile(r"[.!?:;]+[\s\"')]+|\n+")
_LITERAL = re.compile(r"(?<!\\)[a-z]{3,}")


@dataclass(frozen=True)
class Finding:
    """One thing that a stage found, first in a turn of `role` or in the turns joined.

    `score` is at least `limit`; `evidence` is the pattern that occurs. `start` and `end` say which characters of the
    part as it was read it rests on most; all of it if they are equal.
    """

    side: Side
    stage: Literal["length", "reading", "rules", "linear", "encoder", "answers"]
    rule: str
    action: Action
    score: float = 1.0
    limit: float = 1.0
    evidence: str = ""
    start: int = 0
    end: int = 0
    role: str = ""


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
        self._reader = Reader(Lexicon(_words_of(policy.rules) | _shipped_words()))
        self._rules = {side: _Rules(policy, side) for side in SIDES}
        self._heads = {side: _scorer(policy, side) for side in SIDES}
        self._answers = open_answers(policy.answers_from) if policy.answers else None

    def look(self, text: str, side: Side) -> Look:
        """What the stages find in a query or an answer."""
        return self.look_all([text], side)[0]

    def look_all(self, texts: Sequence[str], side: Side) -> list[Look]:
        """What they find in each of many texts."""
        if side == "output":
            return self.look_answers([((), text) for text in texts])
        return self.look_dialogues([alone(text) for text in texts], side)

    def look_answers(self, said: Sequence[tuple[Dialogue, str]]) -> list[Look]:
        """What they find in each of many answers, given what was asked; nothing is asked by an empty dialogue."""
        started_s = time.perf_counter()
        dialogues = [alone(answer, "assistant") for _, answer in said]
        seen = self._read(dialogues)
        looks = self._look(dialogues, seen, "output", took_s=time.perf_counter() - started_s)
        own = self.policy.answers
        if own is not None and own.words:
            looks = [self._with_words(look, parts) for look, parts in zip(looks, seen, strict=True)]
        open_ones = [i for i, look in enumerate(looks) if look.action == "pass"] if own else []
        if own is None or self._answers is None or not open_ones:
            return looks
        started_s = time.perf_counter()
        questions = [[turn.text for turn in cut(said[i][0], self.policy.max_chars) if turn.new] for i in open_ones]
        texts = list(dict.fromkeys(text for each in questions for text in each))
        asked = {text: read.texts for text, read in zip(texts, self._reader.read_all(texts), strict=True)}
        told = [[one for _, read in seen[i] for one in read.texts] for i in open_ones]
        pairs = [Said([one for text in q for one in asked[text]], a) for q, a in zip(questions, told, strict=True)]
        scored = self._answers.score(pairs, pair=own.pair, alone=own.alone)
        each_s = (time.perf_counter() - started_s) / len(open_ones)
        for i, one in zip(open_ones, scored, strict=True):
            found = Finding(
                "output", "answers", ANSWER, own.action, one.score, one.limit, "", *one.span, role="assistant"
            )
            findings = (*looks[i].findings, *((found,) if one.flagged else ()))
            looks[i] = Look(findings, looks[i].elapsed_s | {"answers": each_s})
        return looks

    def _with_words(self, look: Look, parts: Sequence[tuple[str, Read]]) -> Look:
        """An answer's look with what the input's rules find, unless the answer declines wherever they find it."""
        assert self._answers is not None
        rules = self._rules["input"]
        findings = [found for found in rules.find(parts) if found.action != "note"] if look.action == "pass" else []
        if not findings:
            return look
        places = [place for _, read in parts for view in read.views for place in rules.sentences(view)]
        if all(self._answers.declines(places)):
            return look
        return replace(look, findings=(*look.findings, *(replace(found, side="output") for found in findings)))

    def look_dialogues(self, dialogues: Sequence[Dialogue], side: Side) -> list[Look]:
        """What they find in each of many dialogues; the seconds are the mean over those that a stage looked at."""
        started_s = time.perf_counter()
        seen = self._read(dialogues)
        took_s = time.perf_counter() - started_s
        return self._look(dialogues, seen, side, took_s=took_s)

    def _read(self, dialogues: Sequence[Dialogue]) -> list[list[tuple[str, Read]]]:
        """Each part of each dialogue with its role, read; a text that occurs twice is read once."""
        parts = [_parts(cut(turns, self.policy.max_chars)) for turns in dialogues]
        texts = list(dict.fromkeys(text for each in parts for _, text in each))
        reads = dict(zip(texts, self._reader.read_all(texts), strict=True))
        return [[(role, reads[text]) for role, text in each] for each in parts]

    def _look(
        self, dialogues: Sequence[Dialogue], seen: Sequence[Sequence[tuple[str, Read]]], side: Side, *, took_s: float
    ) -> list[Look]:
        """What the rules find, and heads where these find nothing; `took_s` is what the reading took."""
        if not dialogues:
            return []
        started_s = time.perf_counter() - took_s
        found = [
            (*self._unread(turns, each, side), *self._rules[side].find(each))
            for turns, each in zip(dialogues, seen, strict=True)
        ]
        now_s = time.perf_counter()
        looks = [Look(each, {"rules": (now_s - started_s) / len(dialogues)}) for each in found]
        heads = self._heads[side]
        open_ones = [i for i, look in enumerate(looks) if look.action == "pass"] if heads else []
        said = [[(role, *text) for role, read in seen[i] if role != RUN_ON for text in read.texts] for i in open_ones]
        asked = list(dict.fromkeys((text, folds) for each in said for _, text, folds in each))
        scored = dict(zip(asked, heads.score_texts(*_apart(asked)), strict=True))
        each_s = (time.perf_counter() - now_s) / max(1, len(open_ones))
        for i, each in zip(open_ones, said, strict=True):
            scores = [(role, scored[text, folds]) for role, text, folds in each]
            stage = "encoder" if any(one.stage == "encoder" for _, one in scores) else "linear"
            findings = (*looks[i].findings, *self._of_heads(scores, side))
            looks[i] = Look(findings, looks[i].elapsed_s | {stage: each_s})
        return looks

    def shown(self, turns: Dialogue, findings: Sequence[Finding], side: Side, max_chars: int) -> str | None:
        """What was flagged in a dialogue, for a reviewer; None if it is more than `max_chars` characters.

        The whole and what its disguises hide if they fit; else the places that rules rest on, each in its context.
        """
        parts = [(role, text, read) for (role, text), read in self._read_parts(turns)]
        several = len(turns) > 1
        plain = [f"{role}: {text}" if several else text for role, text, _ in parts if role not in (JOINED, RUN_ON)]
        hidden = [text for _, own, read in parts for text, _ in read.texts if text != own]
        whole = "\n".join([*plain, *(f"(which reads: {text})" for text in dict.fromkeys(hidden))])
        if len(whole) <= max_chars:
            return whole
        if any(found.stage != "rules" for found in findings if found.action != "note"):
            return None
        places = [place for _, _, read in parts for view in read.views for place in self._rules[side].places(view)]
        joined_places = "\n...\n".join(dict.fromkeys(places))
        return joined_places if places and len(joined_places) <= max_chars else None

    def _read_parts(self, turns: Dialogue) -> list[tuple[tuple[str, str], Read]]:
        parts = _parts(cut(turns, self.policy.max_chars))
        return list(zip(parts, self._reader.read_all([text for _, text in parts]), strict=True))

    def _of_heads(self, parts: Sequence[tuple[str, Scored]], side: Side) -> list[Finding]:
        """Each head's highest finding over the parts of a dialogue, and the first part that the encoder left out."""
        best: dict[str, Finding] = {}
        unread = [(role, scored.unread) for role, scored in parts if scored.unread]
        for role, hit in ((role, hit) for role, scored in parts for hit in scored.hits):
            old, action = best.get(hit.head), self.policy.heads[hit.head].action
            if old is None or hit.score - hit.limit > old.score - old.limit:
                best[hit.head] = Finding(
                    side, hit.stage, hit.head, action, hit.score, hit.limit, "", *hit.span, role=role
                )
        notes = [
            Finding(side, "encoder", NOT_READ, "note", len(spans), 1, "", *spans[0], role=role)
            for role, spans in unread[:1]
        ]
        return [*best.values(), *notes]

    def _unread(self, turns: Dialogue, parts: Sequence[tuple[str, Read]], side: Side) -> list[Finding]:
        """What was not read: the middle of what is too long, and what looks encoded and says nothing."""
        size, limit = size_of(turns), self.policy.max_chars
        found = [Finding(side, "length", TOO_LONG, "flag", size, limit)] if size > limit else []
        sealed = next((role for role, read in parts if read.unreadable), None)
        if sealed is not None:
            found.append(Finding(side, "reading", UNREADABLE, self.policy.unreadable, role=sealed))
        return found


def _parts(turns: Dialogue) -> list[tuple[str, str]]:
    """What is read of a dialogue: each turn with its role, then the turns joined."""
    together = zip((JOINED, RUN_ON), joined(turns), strict=False)
    return [*((turn.role, turn.text) for turn in turns), *together]


def _apart(texts: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[list[str], list[tuple[str, ...]]]:
    return [text for text, _ in texts], [folds for _, folds in texts]


def _words_of(rules: Mapping[str, Rule]) -> set[str]:
    """The words that rules look for, as they are folded."""
    sources = [source for rule in rules.values() for source in (*rule.phrases, *rule.patterns)]
    return {word for source in sources for word in _LITERAL.findall(fold(normalise(source)))}


@cache
def _shipped_words() -> set[str]:
    """Those of the default policy: what heads read is put together by them too."""
    return _words_of(load_policy("default").rules)


class _Rules:
    """The rules of one side, as one matcher; a rule is found once, by the first of its patterns."""

    def __init__(self, policy: Policy, side: Side) -> None:
        self._side: Side = side
        self._policy = policy
        pairs = [
            pair for name, rule in policy.rules.items() if rule.on in (side, "both") for pair in _pairs(name, policy)
        ]
        self._owners = [(name, source) for name, source, _ in pairs]
        self._expressions = tuple(expression for _, _, expression in pairs)
        self._matcher: Matcher = matcher(self._expressions)

    def sentences(self, view: str) -> list[str]:
        """Every sentence of a reading that a pattern rests on, with the one before it."""
        ends = [0, *(found.end() for found in _SENTENCE_END.finditer(view)), len(view)]
        found = []
        for start, end in self._spans(view):
            first = ends[max(0, bisect_right(ends, start) - 2)]
            found.append(view[first : ends[min(bisect_left(ends, end), len(ends) - 1)]])
        return found

    def _spans(self, view: str) -> list[tuple[int, int]]:
        hits = [self._expressions[index] for index in self._matcher.find(view)]
        return sorted(found.span() for hit in hits for found in re.finditer(hit, view, re.ASCII | re.DOTALL))

    def places(self, view: str) -> list[str]:
        """Every place of a reading that a flagging pattern rests on, with `CONTEXT_CHARS` around it."""
        spans = self._spans(view)
        windows: list[tuple[int, int]] = []
        for start, end in spans:
            first, last = max(0, start - CONTEXT_CHARS), min(len(view), end + CONTEXT_CHARS)
            if windows and first <= windows[-1][1]:
                first, last = windows[-1][0], max(last, windows.pop()[1])
            windows.append((first, last))
        return [view[first:last] for first, last in windows]

    def find(self, parts: Sequence[tuple[str, Read]]) -> list[Finding]:
        """What is found in the readings of a dialogue's parts, each with its role."""
        first: dict[int, str] = {}
        for role, read in parts:
            for index in (index for text in read.views for index in self._matcher.find(text)):
                first.setdefault(index, role)
        by_rule: dict[str, tuple[str, str]] = {}
        for index in sorted(first):
            name, source = self._owners[index]
            by_rule.setdefault(name, (source, first[index]))
        rules = self._policy.rules
        return [
            Finding(self._side, "rules", name, rules[name].action, evidence=source, role=role)
            for name, (source, role) in by_rule.items()
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
