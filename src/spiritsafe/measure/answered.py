"""Which exchanges hold an answer that can be scored, and what is told of the others. Pure functions.

answered     there is an answer, or the risk control stopped it
filtered     the provider's own filter stopped it
unfinished   reasoning that reached no answer (cut at the bound), a call of a tool, an end nobody understands
empty        the model ended at once, without a word
failed       the request was refused, or stayed without an answer

None of the others is a refusal, a right or a wrong answer. Where more than a tenth of a task's items has no answer,
its claims are refused: the rest is no sample of the task.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from spiritsafe.record import Exchange

State = Literal["answered", "filtered", "unfinished", "empty", "failed"]
MOST_LEFT_OUT = 0.1
# At most so many words of a reason: it stands in every claim.
REASON = 120
OPENED = re.compile(r"\A\s*(?:<think(?:ing)?>|\[THINK\])(.*?)(?:</think(?:ing)?>|\[/THINK\]|\Z)", re.DOTALL)
CLOSED = re.compile(r"\A(.*?)(?:</think(?:ing)?>|\[/THINK\])", re.DOTALL)
WORDS = {
    "filtered": "stopped by the provider's filter",
    "unfinished": "ended within its reasoning or in a call of a tool",
    "empty": "empty",
    "failed": "without an answer",
}


def split_thought(answer: str) -> tuple[str, str]:
    """Reasoning and answer proper; an unfinished reasoning leaves no answer.

    A template may have opened the reasoning: then what follows its end is the answer.
    """
    found = OPENED.match(answer) or CLOSED.match(answer)
    return (found.group(1), answer[found.end() :]) if found else ("", answer)


def thought_of(exchange: Exchange) -> tuple[str, str]:
    """Reasoning, told apart by the server or within the answer, and the answer proper."""
    thought, text = split_thought(exchange.answer)
    return exchange.reasoning or thought, text


def state_of(exchange: Exchange) -> State:
    """Whether there is an answer to score."""
    if {"stopped", "retracted"} & set(exchange.flags):
        return "answered"
    if exchange.error_kind == "filter":
        return "filtered"
    if exchange.error_kind or exchange.finish_reason == "error":
        return "failed"
    thought, text = thought_of(exchange)
    if text.strip() or exchange.finish_reason == "content_filter":
        return "answered"
    return "empty" if exchange.finish_reason == "stop" and not thought.strip() else "unfinished"


def too_many(left_out: int, items: int) -> bool:
    """Whether what is left out is too much for a claim. One item alone never is, while others are left."""
    return left_out > max(1.0, MOST_LEFT_OUT * items) or 2 * left_out >= max(1, items)


def told_of(states: Sequence[State], exchanges: Sequence[Exchange]) -> str:
    """What is not answered, counted by kind, with the commonest reason; "" if all is."""
    counts = Counter(s for s in states if s != "answered")
    if not counts:
        return ""
    parts = [f"{num} {WORDS[state]}" for state, num in sorted(counts.items())]
    errors = Counter(" ".join(e.error.split()) for e in exchanges if e.error and state_of(e) == "failed")
    why = f" ({errors.most_common(1)[0][0][:REASON]})" if errors else ""
    return f"of {len(states)} answers {', '.join(parts)}{why}"
