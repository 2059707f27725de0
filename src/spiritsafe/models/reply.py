"""A chat completion as servers really write it, read into text, reasoning, finish reason and usage. Pure functions.

What a server leaves out is not guessed: an unknown finish reason is `unknown`, an unreadable count is not known.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spiritsafe.record import FinishReason, Usage

REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(("stop", "end_turn", "eos", "eos_token", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("content_filter", "safety", "prohibited_content", "blocklist", "recitation"), "content_filter"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(("error", "abort", "cancelled"), "error"),
}
THOUGHTS = ("thinking", "reasoning", "redacted_thinking")
# Counts beyond this are no counts: a server that lies must not spend a budget at a stroke.
MOST_TOKENS = 10**9


@dataclass(frozen=True)
class Reply:
    """What one choice says."""

    text: str
    reasoning: str
    finish_reason: FinishReason
    usage: Usage


def read_reply(data: Any) -> Reply:
    """The first choice of a completion. Raises `ValueError` if it is none."""
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("no choices")
    choice = choices[0]
    message = choice.get("message")
    if message is None and isinstance(choice.get("text"), str):  # a completion in the older form
        message = {"content": choice["text"]}
    if not isinstance(message, dict):
        raise ValueError("no message")
    text, thoughts = _parts(message.get("content"))
    # OpenAI's `refusal` is the model's own answer where it declines, in another field.
    text = text or _text(message.get("refusal"))
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or thoughts
    return Reply(whole(text), whole(reasoning), finish_reason(choice), usage_of(data.get("usage")))


def finish_reason(choice: dict[str, Any]) -> FinishReason:
    """Why the answer ended; `unknown` if that is not said, or in a word that nobody knows."""
    said = choice.get("finish_reason")
    known = REASONS.get(said.strip().lower(), "unknown") if isinstance(said, str) else "unknown"
    if known == "unknown" and isinstance(choice.get("message"), dict) and choice["message"].get("tool_calls"):
        return "tool_calls"
    return known


def usage_of(said: Any) -> Usage:
    """The counts of tokens; not known unless both are whole numbers of at least 0."""
    counts = said if isinstance(said, dict) else {}
    read, written = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    if read is None or written is None:
        return Usage(known=False)
    return Usage(prompt_tokens=read, completion_tokens=written)


def whole(text: str) -> str:
    """The text with lone surrogates, which no file can hold, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and 0 <= value <= MOST_TOKENS else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parts(content: Any) -> tuple[str, str]:
    """Text and thoughts of a content: a string, nothing, or a list of parts (Mistral, Anthropic, agents)."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise ValueError(f"a content that is {json.dumps(content)[:40]}")
    thoughts = [part for part in content if isinstance(part, dict) and part.get("type") in THOUGHTS]
    rest = [part for part in content if not (isinstance(part, dict) and part.get("type") in THOUGHTS)]
    return "".join(_words(rest, 0)), "".join(_words(thoughts, 0))


def _words(value: Any, depth: int) -> Iterator[str]:
    """The strings of parts: `text`, `refusal`, `thinking`, `content`, in the order in which they stand."""
    if isinstance(value, str):
        yield value
    elif depth > 4:  # deeper than any server nests
        return
    elif isinstance(value, list):
        for part in value:
            yield from _words(part, depth + 1)
    elif isinstance(value, dict):
        for name in ("text", "refusal", "thinking", "reasoning", "content", "value"):
            yield from _words(value.get(name), depth + 1)
