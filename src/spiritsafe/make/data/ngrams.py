"""Texts as hashed n-grams of tokens, many at once, equal on every machine.

A token is a word, a number, an operator between numbers, any other symbol (if wanted), or one character of a
script that writes no spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan). Texts are compared as NFKC with
case folded, without invisible characters; `1,000.50` is `1000.5`. A German `1.000` is read as the number 1.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

SPACELESS = "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
SPACELESS += "\U00020000-\U000323af"
# Vowel signs and accents that regular expressions do not count as letters: combining, Hebrew, Arabic, Indic.
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
WORD = rf"\d+(?:\.\d+)+|(?:[^\W{SPACELESS}]|[{MARKS}])+|[{SPACELESS}]"
OPERATOR = r"\*\*|[-+*/^=<>×÷]"
WORDS, SYMBOLS = re.compile(rf"{WORD}|(?<=\d)(?:{OPERATOR})(?=\d)"), re.compile(rf"{WORD}|[^\w\s]")
TIGHT = re.compile(rf"(?<=\d)\s*({OPERATOR})\s*(?=\d)")
INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
THOUSANDS = re.compile(r"(?<=\d)[,\u2009\u202f'](?=\d{3}(?!\d))")
DECIMALS = re.compile(r"(?<=\d)\.\d+")

# An odd multiplier for polynomial hashes, and the constants of splitmix64 (Steele et al., OOPSLA 2014).
BASE = np.uint64(0x9E3779B97F4A7C15)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Tokens:
    """Token ids of all texts one behind the other; text i is `ids[borders[i]:borders[i + 1]]`."""

    ids: U64
    borders: I64

    @property
    def lengths(self) -> I64:
        """Tokens of each text."""
        return np.diff(self.borders)


@dataclass(frozen=True)
class Grams:
    """n-gram hashes and the number of the text each comes from, in the order of the texts."""

    hashes: U64
    owners: I64


def normal(text: str) -> str:
    """A text as it is compared."""
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKC", text.translate(INVISIBLE))
        text = unicodedata.normalize("NFKC", text.casefold())
    text = DECIMALS.sub(lambda m: m[0].rstrip("0").rstrip("."), THOUSANDS.sub("", text))
    return TIGHT.sub(r"\1", text)


def tokens(text: str, *, symbols: bool = False) -> list[str]:
    """The tokens of a text."""
    return (SYMBOLS if symbols else WORDS).findall(normal(text))


def tokenise(texts: Iterable[str], *, symbols: bool = False) -> Tokens:
    """The token ids of many texts."""
    known, ids, borders = _Ids(), [np.empty(0, np.uint64)], [0]
    for text in texts:
        found = np.array([known[token] for token in tokens(text, symbols=symbols)], np.uint64)
        ids.append(found)
        borders.append(borders[-1] + len(found))
    return Tokens(np.concatenate(ids), np.array(borders, np.int64))


def windows(tokens: Tokens, n: int) -> Grams:
    """The n-grams that lie within one text; texts of fewer than `n` tokens have none."""
    num = max(len(tokens.ids) - n + 1, 0)
    hashes = np.full(num, n, np.uint64)
    for k in range(n):
        hashes = hashes * BASE + tokens.ids[k : k + num]
    owners = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    inside = owners[:num] == owners[n - 1 : n - 1 + num]
    return Grams(mixed(hashes[inside]), owners[:num][inside])


def wholes(tokens: Tokens, below: int) -> U64:
    """For each text of fewer than `below` tokens the hash of them all, as of its only n-gram; 0 for the others."""
    hashes = np.zeros(len(tokens.lengths), np.uint64)
    for n in range(below):
        chosen = np.flatnonzero(tokens.lengths == n)
        total = np.full(len(chosen), n, np.uint64)
        for k in range(n):
            total = total * BASE + tokens.ids[tokens.borders[chosen] + k]
        hashes[chosen] = mixed(total)
    return hashes


def shingles(tokens: Tokens, n: int) -> Grams:
    """The set of each text's n-grams, sorted by text and hash; a shorter text's set is its whole. None is empty."""
    found = windows(tokens, n)
    short = np.flatnonzero(tokens.lengths < n)
    hashes = np.concatenate([found.hashes, wholes(tokens, n)[short]])
    owners = np.concatenate([found.owners, short])
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return Grams(hashes[new], owners[new])


def mixed(hashes: U64) -> U64:
    """The finisher of splitmix64: every bit of the input moves every bit of the output."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * MIX[0]
    hashes = (hashes ^ (hashes >> np.uint64(27))) * MIX[1]
    return hashes ^ (hashes >> np.uint64(31))


class _Ids(dict[str, int]):
    """64 bits for each token, computed once."""

    def __missing__(self, token: str) -> int:
        known = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[token] = found = int.from_bytes(known, "little")
        return found
