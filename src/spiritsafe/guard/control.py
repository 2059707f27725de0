"""What a policy makes of exchanges: its stages look, what they flag goes to a reviewer or is stopped.

input    the query is read before the model is asked; what the stages stop, the model never sees
output   the answer is read once it is there; what is stopped then is retracted
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spiritsafe.guard.heads.language import tongue_of
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.guard.policy import Policy
from spiritsafe.guard.review import Reading, Reviewed, Shown, ask
from spiritsafe.guard.stages import Finding, Look, stages_of
from spiritsafe.guard.turns import alone, turns_of
from spiritsafe.models.base import Model
from spiritsafe.record import Exchange, Message

_OF_ONESELF = re.compile(r"\b(ich|mir|mich)\b")  # German, however short: "Ich will sterben" has an English word too


@dataclass(frozen=True)
class Decision:
    """What the risk control made of one exchange, and why.

    `stage` settled it, on `side`, by `rule` with `score`. `stopped` says that the answer is not given;
    in shadow it is, and `action` alone says what would have been; then `refusal` is said in its place.
    `elapsed_s` has the seconds of each stage.
    """

    action: Literal["pass", "stop"] = "pass"
    stage: str = "none"
    side: Literal["", "input", "output"] = ""
    rule: str = ""
    score: float = 0.0
    stopped: bool = False
    findings: tuple[Finding, ...] = ()
    reading: Reading | Literal[""] = ""
    words: str = ""
    refusal: str = ""
    elapsed_s: tuple[tuple[str, float], ...] = ()
    cost_usd: float = 0.0

    @property
    def flags(self) -> tuple[str, ...]:
        """The decision as an exchange's flags: `flagged:RULE`, `reviewed:READING`, `stopped`, `retracted`, `shadow`."""
        named = dict.fromkeys(f"flagged:{found.rule}" for found in self.findings if found.action != "note")
        reviewed = (f"reviewed:{self.reading}",) if self.reading else ()
        reviewed = ("review-failed",) if self.reading == "failed" else reviewed
        if self.action == "pass":
            return (*named, *reviewed)
        end = "shadow" if not self.stopped else "retracted" if self.side == "output" else "stopped"
        return (*named, *reviewed, *(("stopped",) if end == "retracted" else ()), end)


class Control:
    """A policy with its reviewer, ready to decide."""

    def __init__(self, policy: Policy, reviewer: Model | None = None) -> None:
        self.policy, self.reviewer, self._stages = policy, reviewer, stages_of(policy)

    def look_in(self, queries: Sequence[Sequence[Message]]) -> list[Look]:
        """What the stages find in each query; nothing where the policy does not read it."""
        if self.policy.check == "output":
            return [Look() for _ in queries]
        return self._stages.look_dialogues([turns_of(messages) for messages in queries], "input")

    def look_out(self, exchanges: Sequence[Exchange]) -> list[Look]:
        """What the stages find in each answer, given its query; nothing where the policy does not read it."""
        if self.policy.check == "input":
            return [Look() for _ in exchanges]
        return self._stages.look_answers([(turns_of(exchange.messages), exchange.answer) for exchange in exchanges])

    def settles(self, look: Look) -> bool:
        """Whether a query is stopped whatever the model would answer."""
        stops = look.action == "stop" or (look.action == "flag" and self.reviewer is None)
        return stops and not self.policy.shadow

    def decide(self, exchanges: Sequence[Exchange], queries: Sequence[Look] | None = None) -> list[Decision]:
        """Decide on each exchange, given what was found in its query; the reviewer is asked once, for all flagged."""
        first = queries if queries is not None else self.look_in([exchange.messages for exchange in exchanges])
        open_ones = [i for i, look in enumerate(first) if not self.settles(look)]
        second = dict(zip(open_ones, self.look_out([exchanges[i] for i in open_ones]), strict=True))
        looks = [(look, second.get(i, Look())) for i, look in enumerate(first)]
        decisions = [self._by_stages(*pair) for pair in looks]
        asked = [i for i, pair in enumerate(looks) if self._is_unsettled(*pair)]
        for index in (i for i in asked if exchanges[i].error_kind):
            decisions[index] = replace(decisions[index], action="pass", stopped=False)  # no answer: nothing to give
        asked = [i for i in asked if not exchanges[i].error_kind]
        if self.reviewer is not None and self.policy.review is not None:
            shown = [self._shown(exchanges[i], *looks[i], self.policy.review.max_chars) for i in asked]
            for index, said in zip(asked, ask(self.policy.review, self.reviewer, shown), strict=True):
                decisions[index] = self._reviewed(decisions[index], said)
        return [self._refusing(*each) for each in zip(decisions, exchanges, strict=True)]

    def _shown(self, exchange: Exchange, query: Look, answer: Look, max_chars: int) -> Shown:
        """What the reviewer is shown of both sides: what was flagged, and of an unflagged side its beginning."""
        turns = turns_of(exchange.messages)
        said = alone(exchange.answer, "assistant")
        asked = self._stages.shown(turns, query.findings, "input", max_chars)
        told = self._stages.shown(said, answer.findings, "output", max_chars)
        whole = [(asked, query, turns), (told, answer, said)]
        fits = all(text is not None or look.action == "pass" for text, look, _ in whole)
        texts = [text if text is not None else "".join(turn.text for turn in of)[:max_chars] for text, _, of in whole]
        return Shown(texts[0], texts[1], fits)

    def _refusing(self, decision: Decision, exchange: Exchange) -> Decision:
        """The decision with what is said to a stopped request: the first finding's own refusal, or the policy's."""
        if decision.action == "pass":
            return decision
        rules = [self.policy.rules[found.rule] for found in decision.findings if found.rule in self.policy.rules]
        own = next((rule.refusal for rule in rules if rule.refusal and rule.action != "note"), None)
        if own is None:
            return replace(decision, refusal=self.policy.refusal)
        query = " ".join(message.content for message in exchange.messages if message.role == "user")
        folded = fold(normalise(query[:2000]))
        is_german = tongue_of(folded) == "german" or bool(_OF_ONESELF.search(folded))
        german = own.get("german") if is_german else None
        return replace(decision, refusal=german or own["english"])

    def _is_unsettled(self, query: Look, answer: Look) -> bool:
        return "stop" not in (query.action, answer.action) and "flag" in (query.action, answer.action)

    def _by_stages(self, query: Look, answer: Look) -> Decision:
        """What the stages alone say: the strongest finding decides, of equal ones the first."""
        findings = (*query.findings, *answer.findings)
        weight = {"stop": 2, "flag": 1, "note": 0}
        strongest = max(findings, key=lambda found: weight[found.action], default=None)
        elapsed_s = _added(query.elapsed_s, answer.elapsed_s)
        if strongest is None or strongest.action == "note":
            return Decision(findings=findings, elapsed_s=elapsed_s)
        return Decision(
            "stop", strongest.stage, strongest.side, strongest.rule, strongest.score,
            not self.policy.shadow, findings, elapsed_s=elapsed_s,
        )  # fmt: skip

    def _reviewed(self, decision: Decision, said: Reviewed) -> Decision:
        settled = replace(decision, stage="reviewer", reading=said.reading, words=said.words, cost_usd=said.cost_usd)
        return replace(
            settled,
            action="stop" if said.stopped else "pass",
            stopped=said.stopped and not self.policy.shadow,
            elapsed_s=(*decision.elapsed_s, ("reviewer", said.elapsed_s)),
        )


def explain(decision: Decision) -> str:
    """A decision in lines a person reads: what was decided and by which stage, then each finding."""
    by = f" by {decision.stage}" if decision.stage != "none" else ""
    said = f", the reviewer said {decision.words!r} ({decision.reading})" if decision.reading else ""
    lines = [f"{decision.action}{by}{said}"]
    for found in decision.findings:
        because = f": {found.evidence}" if found.evidence else ""
        against = f"{found.score:.3g} >= {found.limit:.3g}"
        lines.append(f"  {found.side} {found.stage} {found.rule} {against} -> {found.action}{because}")
    return "\n".join(lines)


def _added(*parts: dict[str, float]) -> tuple[tuple[str, float], ...]:
    stages = dict.fromkeys(stage for part in parts for stage in part)
    return tuple((stage, sum(part.get(stage, 0.0) for part in parts)) for stage in stages)
