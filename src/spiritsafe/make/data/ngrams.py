"""Texts as hashed n-grams of tokens, many at once, equal on every machine.

What a token is, and how texts are compared: `spiritsafe.checks.words`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from spiritsafe.checks.words import tokens

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

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
