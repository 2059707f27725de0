"""What a policy makes of exchanges: its stages look, what they flag goes to a reviewer or is stopped.

input    the query is read before the model is asked; what the stages stop, the model never sees
output   the answer is read once it is there; what is stopped then is retracted
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spiritsafe.guard.policy import Policy
from spiritsafe.guard.review import Reading, Reviewed, ask
from spiritsafe.guard.stages import Finding, Look, stages_of
from spiritsafe.guard.turns import turns_of
from spiritsafe.models.base import Model
from spiritsafe.record import Exchange, Message


@dataclass(frozen=True)
class Decision:
    """What the risk control made of one exchange, and why.

    `stage` settled it, on `side`, by `rule` with `score`. `stopped` says that the answer is not given;
    in shadow it is, and `action` alone says what would have been. `elapsed_s` has the seconds of each stage.
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
    elapsed_s: tuple[tuple[str, float], ...] = ()
    cost_usd: float = 0.0

    @property
    def flags(self) -> tuple[str, ...]:
        """The decision as an exchange's flags: `flagged:RULE`, `reviewed:READING`, `stopped`, `retracted`, `shadow`."""
        named = dict.fromkeys(f"flagged:{found.rule}" for found in self.findings if found.action != "note")
        reviewed = (f"reviewed:{self.reading}",) if self.reading else ()
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

    def look_out(self, answers: Sequence[str]) -> list[Look]:
        """What the stages find in each answer; nothing where the policy does not read it."""
        if self.policy.check == "input":
            return [Look() for _ in answers]
        return self._stages.look_all(answers, "output")

    def settles(self, look: Look) -> bool:
        """Whether a query is stopped whatever the model would answer."""
        stops = look.action == "stop" or (look.action == "flag" and self.reviewer is None)
        return stops and not self.policy.shadow

    def decide(self, exchanges: Sequence[Exchange], queries: Sequence[Look] | None = None) -> list[Decision]:
        """Decide on each exchange, given what was found in its query; the reviewer is asked once, for all flagged."""
        first = queries if queries is not None else self.look_in([exchange.messages for exchange in exchanges])
        open_ones = [i for i, look in enumerate(first) if not self.settles(look)]
        second = dict(zip(open_ones, self.look_out([exchanges[i].answer for i in open_ones]), strict=True))
        looks = [(look, second.get(i, Look())) for i, look in enumerate(first)]
        decisions = [self._by_stages(*pair) for pair in looks]
        asked = [i for i, pair in enumerate(looks) if self._is_unsettled(*pair)]
        if self.reviewer is not None and self.policy.review is not None:
            for index, said in zip(
                asked, ask(self.policy.review, self.reviewer, [exchanges[i] for i in asked]), strict=True
            ):
                decisions[index] = self._reviewed(decisions[index], said)
        return decisions

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
