"""Folding in one pass of C++: what `fold(normalise(text))` gives, where each character is read by itself.

A table holds what a character folds to between two letters; it is asked of Python once for each character met. Marks,
look-alikes of Latin letters and what composes with a letter before it depend on their neighbours: texts with those
are left to Python. Of a folded text it is told whether an encoding may hide in it, rather once too often.
"""

import ctypes
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spiritsafe.guard.normal import STRANGE, fold, normalise
from spiritsafe.native import native

CONTEXT, UNKNOWN = -1, -2  # why a text was not folded
# Bits of what may hide. RUN: letters and digits as long as base64's; CODED: digits, capitals or signs amid letters.
# TURNED: the last word is one that questions start with. MASKED: a star between two letters.
LEET, SPELLED, CIPHER, RUN, MARKED, CODED, NUMBERS, MORSE, PIECES, JOINED, NAMES, TURNED, MASKED = (
    1 << i for i in range(13)
)
MOST = 7
_JOINERS = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # unseen, and alone of no meaning
TABLE = np.zeros(0x110000, np.uint64)
TABLE_AT = TABLE.ctypes.data


def folded(texts: Sequence[str], words: tuple[Any, int]) -> list[tuple[str, int]] | None:
    """Each text folded, and what may hide in it: bits of what, or `CONTEXT`. None without a compiler.

    `words` is a lexicon's table of what a word may be.
    """
    library = _library()
    if library is None:
        return None
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    found = _folded(library, raw, words)
    if unknown := [text for text, (_, hides) in zip(texts, found, strict=True) if hides == UNKNOWN]:
        for letter in set().union(*unknown):
            _learn(letter)
        return _folded(library, raw, words)
    return found


def _folded(library: ctypes.CDLL, raw: Sequence[bytes], words: tuple[Any, int]) -> list[tuple[str, int]]:
    num, joined = len(raw), b"".join(raw)
    numbers = ctypes.c_int64 * num
    ends, out_ends, hides = numbers(*accumulate(map(len, raw))), numbers(), numbers()
    out = np.empty(2 * len(joined) + 1, np.uint8)
    library.fold_texts(joined, ends, num, TABLE_AT, *words, out.ctypes.data, out_ends, hides)
    folds = out[: out_ends[-1] if num else 0].tobytes()
    return [(folds[start:end].decode(), h) for (start, end), h in zip(pairwise([0, *out_ends]), hides, strict=True)]


def _learn(letter: str) -> None:
    """Enter a character: how many bytes it folds to and which, or that this depends on its neighbours."""
    plain = unicodedata.normalize("NFKC", letter)
    joins = not plain or unicodedata.category(plain[0]) in ("Mn", "Mc") or any("\u1100" <= c < "\u1200" for c in plain)
    bare = unicodedata.normalize("NFKD", letter.casefold())
    acts = letter in "\b\x1b"  # it takes a letter back, or begins what a terminal obeys
    unseen = letter > "\x7f" and not (letter.isprintable() or letter.isspace() or letter in _JOINERS)
    codes = letter > "\x7f" and plain.isascii() and plain.isalnum()  # it may be a letter of an encoding
    alone = letter in "\ufe0e\ufe0f" or not (joins or acts or unseen or codes or STRANGE.search(letter + plain + bare))
    reads = fold(normalise(f"x{letter}x"))[1:-1].encode() if alone else b""
    fits = alone and len(reads) <= min(MOST, 2 * len(letter.encode("utf-8", "surrogatepass")))
    code = len(reads) + 1 if fits else CONTEXT & 0xFF
    TABLE[ord(letter)] = code << 56 | (int.from_bytes(reads, "little") if fits else 0)


@cache
def _library() -> ctypes.CDLL | None:
    library = native(Path(__file__).with_name("folding.cpp"))
    if library is not None:
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        library.fold_texts.argtypes = [
            ctypes.c_char_p, pointer, number, pointer, pointer, number, pointer, pointer, pointer,
        ]  # fmt: skip
        library.fold_texts.restype = None
    return library
