"""Many patterns at once over a folded text: which of them occur.

With Hyperscan (extra `guard`) all are one automaton, and time is linear in the text whatever the patterns are;
without it, Python's `re` tries rule after rule: the same hits, slower. Both take the same expressions, those of
`of_phrase` and `of_pattern`: what one of them cannot do, or reads in another way, is refused when a policy is loaded.
"""

import re
import tempfile
import warnings
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any, Protocol

from spiritsafe.cache import is_kept, keep, private_dir
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.native import processor_flags
from spiritsafe.record import digest_of

# How Python's parser names what no automaton can do.
NOT_LINEAR = {
    "ASSERT": "looks around", "ASSERT_NOT": "looks around", "GROUPREF": "looks back", "GROUPREF_EXISTS": "looks back",
    "ATOMIC_GROUP": "has an atomic group", "POSSESSIVE_REPEAT": "has a possessive repeat",
}  # fmt: skip
MOST_STATES = 10_000  # letters of a pattern with its repeats written out; Hyperscan's own limit lies above
# Read in two ways: {,3} is text to Hyperscan; \N, \u and \U are Python's; (?aLu) too; \v is one character or several.
TWO_WAYS = re.compile(r"(?<!\\)(?:\\\\)*(?:\{,|\\[NuUv]|\(\?[a-zA-Z]*[aLu][a-zA-Z]*(?:-[a-zA-Z]*)?[:)])")
FLAGS = re.ASCII | re.IGNORECASE | re.DOTALL
PARSER: Any = import_module("re._parser")


class Matcher(Protocol):
    """Finds which of its patterns occur in a folded text."""

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the patterns that occur, ascending."""
        ...


@lru_cache(maxsize=64)
def matcher(expressions: tuple[str, ...]) -> Matcher:
    """A matcher of regular expressions made by `of_phrase` or `of_pattern`: Hyperscan where installed, else `re`."""
    return _Automaton(expressions) if util.find_spec("hyperscan") else _Alternatives(expressions)


def of_phrase(phrase: str) -> str:
    """A phrase of whole words as an expression; `*` stands for any letters or digits."""
    folded = fold(normalise(phrase))
    if not folded.replace("*", "").strip():
        raise ValueError(f"{phrase!r} holds no word")
    if len(folded) > MOST_STATES:
        raise ValueError(f"a phrase of {len(folded)} characters, {MOST_STATES} are the most")
    body = "".join(r"\w*" if c == "*" else re.escape(c) if c.isascii() else c for c in folded).replace(r"\ ", " ")
    left, right = (r"\b" if re.match(r"[a-z0-9_*]", edge) else "" for edge in (folded[:1], folded[-1:]))
    return f"{left}{body}{right}"


@lru_cache(maxsize=4096)  # a policy is read again and again, and Hyperscan takes some 20 ms a pattern
def of_pattern(pattern: str) -> str:
    """A regular expression as it is matched: umlauts folded. Raises `ValueError` where it cannot be."""
    folded = "".join(c if c.isascii() else fold(c) for c in pattern)
    if flags := re.match(r"\(\?([imsx]+)\)", folded):  # for the whole: a group of its own, as patterns are joined
        folded = f"(?{flags[1]}:{folded[flags.end() :]}" + ("\n)" if "x" in flags[1] else ")")
    if TWO_WAYS.search(folded):
        raise ValueError(f"{pattern!r} has {{,n}}, \\N, \\u, \\U, \\v or (?a), which engines read in two ways")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # [[:alpha:]] and sets within sets
            re.compile(folded, FLAGS)
            parsed = PARSER.parse(folded, FLAGS)
            states = _states(parsed)
    except (re.error, FutureWarning, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
    except _NotLinear as error:
        raise ValueError(f"{pattern!r} {error}, which no automaton can") from None
    if parsed.getwidth()[0] == 0:
        raise ValueError(f"{pattern!r} fits an empty text, so it would fit any")
    if states > MOST_STATES:
        raise ValueError(f"{pattern!r} is too large: {states} letters with its repeats, {MOST_STATES} are the most")
    if problem := _refused(folded):
        raise ValueError(f"{pattern!r} cannot be matched ({problem})")
    return folded


class _NotLinear(Exception):
    """What an expression does that an automaton cannot."""


def _states(parsed: Any) -> int:
    """How many letters an expression has, its repeats written out. Raises `_NotLinear`."""
    total = 0
    for kind, value in parsed:
        if (name := str(kind)) in NOT_LINEAR:
            raise _NotLinear(NOT_LINEAR[name])
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, part = value
            total += _states(part) * max(1, least if most == PARSER.MAXREPEAT else most)
        elif name == "SUBPATTERN":
            total += _states(value[-1])
        elif name == "BRANCH":
            total += sum(_states(part) for part in value[1])
        else:
            total += 1
    return total


def _refused(expression: str) -> str:
    """Why Hyperscan does not take an expression, if it is there and does not."""
    if not util.find_spec("hyperscan"):
        return ""
    hyperscan = import_module("hyperscan")
    try:
        _compiled(hyperscan, [expression])
    except hyperscan.HyperscanError as error:
        return str(error)
    return ""


class _Automaton:
    """Hyperscan; what took seconds to compile is kept in the user's cache, by patterns, version and processor."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self._any = bool(expressions)
        if self._any:
            hyperscan = import_module("hyperscan")
            known = [expressions, metadata.version("hyperscan"), sorted(processor_flags())]
            kept = private_dir("patterns") / f"{digest_of(known)[:16]}.hs"
            if not is_kept(kept):
                with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                    made = Path(scratch) / "database"
                    made.write_bytes(hyperscan.dumpb(_compiled(hyperscan, expressions)))
                    keep(made, kept)
            self._database = hyperscan.loadb(kept.read_bytes(), mode=hyperscan.HS_MODE_BLOCK)
            self._database.scratch = hyperscan.Scratch(self._database)

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the patterns that occur, ascending."""
        hits: list[int] = []

        def keep(index: int, *_: Any) -> None:
            hits.append(index)

        if self._any and text:
            self._database.scan(text.encode(), match_event_handler=keep)
        return tuple(sorted(hits))


def _compiled(hyperscan: Any, expressions: Sequence[str]) -> Any:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    once = hyperscan.HS_FLAG_CASELESS | hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_SINGLEMATCH
    data = [each.encode() for each in expressions]
    flags = [once | hyperscan.HS_FLAG_DOTALL] * len(data)
    database.compile(expressions=data, ids=list(range(len(data))), flags=flags)
    return database


class _Alternatives:
    """Blocks of patterns as one alternative each: a block is looked into only where it matches."""

    def __init__(self, expressions: Sequence[str], block: int = 64) -> None:
        compiled = [re.compile(each, FLAGS) for each in expressions]
        self._blocks = [
            (re.compile("|".join(f"(?:{e})" for e in expressions[i : i + block]), FLAGS),
             list(enumerate(compiled))[i : i + block])
            for i in range(0, len(expressions), block)
        ]  # fmt: skip

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the patterns that occur, ascending."""
        return tuple(i for joined, each in self._blocks if joined.search(text) for i, one in each if one.search(text))
