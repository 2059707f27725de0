"""A text as the risk control reads it: folded, and beside it what leetspeak, spelling out, base64 and rot13 hide.

All takes time linear in the text. Not covered: images of text, other ciphers, words that a model only infers.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Sequence
from functools import partial

from spiritsafe.guard.folding import CONTEXT, LEET, ROT13, RUN, SPELLED, folded, packed
from spiritsafe.guard.normal import fold, normalise

_LEET = str.maketrans("013457@$!|", "oieastasii")
_LEET_L = str.maketrans("013457@$!|", "oleastasll")
_LEET_WORD = re.compile(r"(?<![a-z0-9@$!|])[a-z2689]*+[013457@$!|][a-z0-9@$!|]*")
_LEET_MIX = re.compile(r"[a-z][013457@$!|][a-z]|[a-z]{2}[013457@$]|[013457@$][a-z]{2}")
_SPELLED = re.compile(r"(?<![a-z0-9])[a-z]([ .\-_*])[a-z](?:\1[a-z]){2,}(?![a-z0-9])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_WORD = re.compile(r"[a-z]+")
_ORDINARY = (
    "the how what you for and with that this make build about write tell give from into your can are "
    "wie ich der die das und ein eine mit nicht mir fuer auf ist"
)
_ROT13 = frozenset(codecs.encode(_ORDINARY, "rot13").split())
COMMON = packed(sorted(_ROT13))


def views(text: str) -> tuple[str, ...]:
    """The folded text first; then, where there is one, the readings that an encoding hides, each folded."""
    return views_of([text])[0]


def views_of(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The readings of each of many texts."""
    found = folded(texts, COMMON) or [("", CONTEXT)] * len(texts)
    return [_views(text, *known) if known[1] else (known[0],) for text, known in zip(texts, found, strict=True)]


def _views(text: str, base: str, hides: int) -> tuple[str, ...]:
    shown = normalise(text) if hides & RUN else ""
    if hides == CONTEXT:
        base = fold(shown)
    found = [base, *_plain(base, hides)]
    for hidden in _decoded(shown, depth=2):
        found += [fold(hidden), *_plain(fold(hidden))]
    return tuple(dict.fromkeys(found))


def _plain(base: str, hides: int = CONTEXT) -> list[str]:
    """Readings of a folded text without leetspeak, spelled-out words and rot13, of those that it may hide."""
    found = []
    if hides & LEET and _LEET_MIX.search(base):
        found += [_LEET_WORD.sub(partial(_unleet, table), base) for table in (_LEET, _LEET_L)]
    if hides & SPELLED and _SPELLED.search(base):
        found.append(_SPELLED.sub(lambda word: re.sub(r"[ .\-_*]", "", word.group()), base))
    if hides & ROT13 and len(_ROT13.intersection(_WORD.findall(base))) >= 2:
        found.append(codecs.encode(base, "rot13"))
    return found


def _unleet(table: dict[int, int], found: re.Match[str]) -> str:
    word = found.group()
    return word.translate(table) if _LEET_MIX.search(word) else word


def _decoded(shown: str, *, depth: int) -> list[str]:
    """What runs of base64 say, where that is text; `depth` times over."""
    found = []
    for run in _BASE64.findall(shown) if depth else ():
        data = run.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            said = base64.b64decode(data + "=" * (-len(data) % 4)).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
        if said.isprintable() or "\n" in said:
            inner = normalise(said)
            found += [inner, *_decoded(inner, depth=depth - 1)]
    return found
