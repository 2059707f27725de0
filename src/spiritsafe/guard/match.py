"""Many patterns at once over a folded text: which of them occur.

With Hyperscan (extra `guard`) all are one automaton, and time is linear in the text whatever the patterns are;
without it, Python's `re` tries rule after rule: the same hits, slower.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module, metadata, util
from typing import Any, Protocol

from spiritsafe.cache import cache_dir
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.native import processor_flags
from spiritsafe.record import digest_of, write_atomic

NOT_LINEAR = re.compile(r"\(\?(?:[=!]|<[=!]|P=)|(?<!\\)(?:\\\\)*\\[1-9]")


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
    body = "".join(r"\w*" if c == "*" else re.escape(c) if c.isascii() else c for c in folded).replace(r"\ ", " ")
    left, right = (r"\b" if re.match(r"[a-z0-9_*]", edge) else "" for edge in (folded[:1], folded[-1:]))
    return f"{left}{body}{right}"


def of_pattern(pattern: str) -> str:
    """A regular expression as it is matched: umlauts folded. Raises `ValueError` where it cannot be."""
    if NOT_LINEAR.search(pattern):
        raise ValueError(f"{pattern!r} looks around or back, which no automaton can")
    folded = "".join(c if c.isascii() else fold(c) for c in pattern)
    try:
        re.compile(folded, re.ASCII)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
    return folded


class _Automaton:
    """Hyperscan; what took seconds to compile is kept in the user's cache, by patterns, version and processor."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self._any = bool(expressions)
        if self._any:
            hyperscan = import_module("hyperscan")
            known = [expressions, metadata.version("hyperscan"), sorted(processor_flags())]
            kept = cache_dir() / "patterns" / f"{digest_of(known)[:16]}.hs"
            if not kept.exists():
                write_atomic(kept, hyperscan.dumpb(_compiled(hyperscan, expressions)))
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
        compiled = [re.compile(each, re.ASCII | re.IGNORECASE | re.DOTALL) for each in expressions]
        self._blocks = [
            (re.compile("|".join(f"(?:{e})" for e in expressions[i : i + block]), re.ASCII | re.IGNORECASE | re.DOTALL),
             list(enumerate(compiled))[i : i + block])
            for i in range(0, len(expressions), block)
        ]  # fmt: skip

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the patterns that occur, ascending."""
        return tuple(i for joined, each in self._blocks if joined.search(text) for i, one in each if one.search(text))
