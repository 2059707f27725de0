"""A dialogue as the risk control reads it: every turn of every role, by itself and joined with its neighbours.

The gateway keeps no dialogues, so each turn that a client sends is the client's word, also one that calls itself the
model's. `new` are the turns after the last answer that is followed by anything; the rest came with earlier requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from spiritsafe.record import Message


@dataclass(frozen=True)
class Turn:
    """One turn's role and text, and whether it came after the last answer."""

    role: str
    text: str
    new: bool = True


Dialogue = tuple[Turn, ...]


def turns_of(messages: Sequence[Message]) -> Dialogue:
    """All turns that go to the model, whoever is said to have written them."""
    answers = [i for i, message in enumerate(messages[:-1]) if message.role == "assistant"]
    last = max(answers, default=-1)
    return tuple(Turn(message.role, message.content, i > last) for i, message in enumerate(messages))


def alone(text: str, role: str = "user") -> Dialogue:
    """A dialogue of one turn."""
    return (Turn(role, text),)


def joined(turns: Sequence[Turn]) -> tuple[str, ...]:
    """The turns as one text, if they are several: with blanks between, and without, as a cut word is read."""
    if len(turns) < 2:
        return ()
    texts = [turn.text for turn in turns]
    return " ".join(texts), "".join(texts)


def cut(turns: Dialogue, max_chars: int) -> Dialogue:
    """The turns up to `max_chars` characters in all, half of them from each end."""
    size = size_of(turns)
    if size <= max_chars:
        return turns
    half = max_chars // 2
    ends = accumulate(len(turn.text) for turn in turns)
    kept = []
    for turn, end in zip(turns, ends, strict=True):
        start = end - len(turn.text)
        first = turn.text[: max(0, half - start)]
        last = turn.text[max(len(first), size - half - start) :]
        kept.append(replace(turn, text=f"{first} {last}" if first and last else first + last))
    return tuple(kept)


def size_of(turns: Sequence[Turn]) -> int:
    """Characters in all turns together."""
    return sum(len(turn.text) for turn in turns)
