"""What a server says of an answer's tokens, in the student's ids; what cannot be true is refused.

Formats: OpenAI's chat completions, completions with `echo`, and vLLM's `prompt_logprobs`. Log-probabilities
are in nats. What a server says is hostile input: its numbers are checked, one by one and in sum.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spiritsafe.errors import EndpointError
from spiritsafe.make.signals.token_map import Named, TokenMap, named
from spiritsafe.record import Record

Candidates = list[tuple[Named, float]]
Json = dict[str, Any]
# Servers compute in bfloat16 and round: so much may a logarithm, and a sum, be above what it can be.
ROUNDING = 5e-3
# What servers write for a probability of 0 (JSON has no infinity).
NOTHING = -9000.0


class Said(Record):
    """One answer's signal: at each of `token_ids` the known (id, log-probability) pairs, likeliest first.

    `mass` is what the server named in all, summed over the tokens; `unmapped` the part of it that is on
    tokens that are not the student's.
    """

    id: str
    token_ids: tuple[int, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]
    mass: float
    unmapped: float

    def logprobs(self) -> tuple[float, ...]:
        """Of the answer's own tokens."""
        return tuple(dict(row)[token] for row, token in zip(self.rows, self.token_ids, strict=True))


@dataclass(frozen=True)
class Position:
    """One token as the server names it, with all candidates it told, this one among them."""

    token: Named
    candidates: Candidates


def chat_positions(choice: Json, where: str) -> list[Position]:
    """The positions of a chat completion. Raises `EndpointError` where it has none, or they are broken."""
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list) or not content:
        raise EndpointError(where, "returned no log-probabilities", "is that switched on at the server?")
    try:
        return [_position(named(e), e["logprob"], _tops(e.get("top_logprobs"))) for e in content]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _broken(where, error) from None


def prompt_positions(choice: Json, data: Json, num: int, where: str) -> list[Position] | None:
    """The positions of a given prompt of `num` tokens but its first; None where the server tells none.

    Reads `prompt_logprobs` (vLLM), else the completion's `logprobs` of an echo.
    """
    try:
        told = choice.get("prompt_logprobs", data.get("prompt_logprobs"))
        if isinstance(told, list):
            if len(told) != num:
                raise EndpointError(where, f"told log-probabilities of {len(told)} tokens of a prompt of {num}")
            return [_of_prompt(row) for row in told[1:]]
        echoed = choice.get("logprobs") or {}
        tokens, own, tops = (echoed.get(key) or [] for key in ("tokens", "token_logprobs", "top_logprobs"))
        if len(tokens) < num or own[0] is not None:  # a prompt's first token has none: those are of new tokens
            return None
        parts = zip(tokens[1:num], own[1:num], tops[1:num], strict=True)
        return [_position(_legacy(t), lp, [(_legacy(c), x) for c, x in (row or {}).items()]) for t, lp, row in parts]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise _broken(where, error) from None


def said_of(identity: str, positions: Sequence[Position], tokens: TokenMap, where: str) -> Said:
    """The positions in the student's ids.

    Raises `EndpointError` where numbers cannot be probabilities, or an answer's token is none of the student's.
    """
    ids: list[int] = []
    rows: list[tuple[tuple[int, float], ...]] = []
    mass = unmapped = 0.0
    for number, position in enumerate(positions):
        # First of all: a token under another's name would be counted twice, and the sum be blamed.
        chosen = tokens.id_of(position.token)
        if chosen is None:
            what = f"token {number} of an answer, {_shown(position.token)}, is no single token of the student's"
            raise EndpointError(where, what, "does the student have the teacher's tokenizer?")
        total = checked_mass(position, number, where)
        found: dict[int, float] = {}
        for candidate, logprob in position.candidates:
            id_ = chosen if candidate == position.token else tokens.id_of(candidate)
            if id_ is None:
                unmapped += math.exp(logprob)
            elif id_ not in found and logprob > NOTHING:
                found[id_] = min(0.0, logprob - math.log(max(1.0, total)))
        mass += total
        ids.append(chosen)
        rows.append(tuple(sorted(((i, round(x, 5)) for i, x in found.items()), key=lambda e: (-e[1], e[0]))))
    return Said(id=identity, token_ids=tuple(ids), rows=tuple(rows), mass=mass, unmapped=unmapped)


def without_end(positions: list[Position]) -> list[Position]:
    """The positions but a last one whose token has no name: that ended the answer, and which end it was is not told."""
    last = positions[-1].token
    nameless = last.id_ is None and not last.text and not last.bytes_
    return positions[:-1] if nameless and len(positions) > 1 else positions


def checked_mass(position: Position, number: int, where: str) -> float:
    """The mass of a position's candidates. Raises `EndpointError` where they are no probabilities."""
    for candidate, logprob in position.candidates:
        if math.isnan(logprob) or logprob > ROUNDING:
            what = f"said the log-probability {logprob} of {_shown(candidate)} at token {number}"
            raise EndpointError(where, what, "that cannot be")
    total = math.fsum(math.exp(logprob) for _, logprob in position.candidates)
    if total > 1 + ROUNDING:
        what = f"named candidates whose probabilities sum to {total:.3f} at token {number}"
        raise EndpointError(where, what, "that cannot be")
    return total


def _position(token: Named, logprob: Any, tops: Iterable[tuple[Named, Any]]) -> Position:
    """The candidates, each once; the token itself is one of them, even where it is not among the likeliest.

    Halves of characters are all told as U+FFFD where a server tells texts only: those of other numbers are others.
    """
    found: dict[tuple[Named, float], tuple[Named, float]] = {}
    for candidate, value in [(token, logprob), *tops]:
        number = _number(value)
        key = (candidate, 0.0 if candidate.certain else number)
        _, known = found.setdefault(key, (candidate, number))
        if abs(known - number) > ROUNDING:
            raise ValueError(f"{_shown(candidate)} has two log-probabilities")
        if math.isnan(number):
            found[key] = (candidate, number)
    return Position(token, list(found.values()))


def _tops(told: Any) -> list[tuple[Named, Any]]:
    return [(named(entry), entry["logprob"]) for entry in told or []]


def _of_prompt(row: Json) -> Position:
    """vLLM's `{"id": {"logprob", "rank", "decoded_token"}}`; the prompt's own token is the first."""
    told = [(Named(str(e.get("decoded_token") or ""), None, int(i)), e["logprob"]) for i, e in row.items()]
    return _position(*told[0], told[1:])


def _legacy(text: str) -> Named:
    return named({"token": text})


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _shown(token: Named) -> str:
    return f"id {token.id_}" if token.id_ is not None else repr(token.text[:40])


def _broken(where: str, error: Exception) -> EndpointError:
    return EndpointError(where, f"told log-probabilities in a form that cannot be read ({error!r})")
