"""Hashed n-grams of a folded text: words (1 to 3), letters (3 to 5, within a word and the blanks around it), ideas.

    tokens    runs of letters and digits, and runs of other signs; blanks part them
    bucket    a polynomial hash of the n-gram's bytes, mixed; of `1 << BITS`
    ideas     what words are about (`concepts.py`), alone and two near each other: a bucket each, after those
    value     1 / sqrt(distinct buckets): a text has length 1, and what repeats counts once
    windows   a text of more than `WINDOW` tokens is read in pieces, each half in the last; the highest score counts

C++ where there is a compiler, else numpy: the same buckets, scores equal to rounding. Linear in the text.
"""

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.guard.heads.concepts import BACK, BASE, MIX, MOST, SLOTS_BITS, of_token, table
from spiritsafe.native import native

BITS, STEP, HEADS = 18, 80, 4
WIDTH = (1 << BITS) + MOST**2
WINDOW = 2 * STEP
TOKEN = re.compile(rb"[a-z0-9\x80-\xff]+|[^a-z0-9\x80-\xff\x00-\x20]+")
TOKENS = re.compile("[a-z0-9\x80-\U0010ffff]+|[^a-z0-9\x80-\U0010ffff\x00-\x20]+")  # the same in characters
LETTERS, WORDS = (3, 4, 5), (1, 2, 3)
Buckets = NDArray[np.int32]
Floats = NDArray[np.float32]


def buckets(text: str) -> list[Buckets]:
    """The distinct buckets of each window of a folded text, ascending; one window at least."""
    library = _library()
    if library is None:
        return [_plain(tokens) for tokens in _windows(TOKEN.findall(text.encode()))]
    raw = text.encode()
    ends = np.zeros(len(raw) // STEP + 2, np.int64)
    out = np.empty(64 * len(raw) + 64, np.int32)
    count = library.ngrams_buckets(raw, len(raw), BITS, WINDOW, STEP, _at(out), len(out), _at(ends))
    if count < 0:
        raise AssertionError("a text has fewer than 64 buckets a byte")
    starts = [0, *ends[: count - 1].tolist()]
    return [np.sort(out[start:end]) for start, end in zip(starts, ends[:count].tolist(), strict=True)]


@dataclass(frozen=True)
class Weights:
    """Weights of at most `HEADS` heads as they are summed: whole numbers (WIDTH, HEADS), and what one is worth."""

    codes: NDArray[np.int16]
    units: Floats


def packed(weights: Floats) -> Weights:
    """Weights (WIDTH, H) in 16 bits."""
    units = np.maximum(np.abs(weights).max(0), 1e-9).astype(np.float32) / np.float32(32767)
    codes = np.zeros((len(weights), HEADS), np.int16)
    codes[:, : weights.shape[1]] = np.rint(weights / units)
    return Weights(codes, units)


def scores(texts: Sequence[str], weights: Weights) -> Floats:
    """The highest score of any window of each folded text for each head, (N, H)."""
    library, heads = _library(), len(weights.units)
    if library is None:
        found = [np.max([_score(window, weights) for window in buckets(text)], axis=0)[:heads] for text in texts]
        return np.array(found, np.float32).reshape(-1, heads) * weights.units
    raw, out = [text.encode() for text in texts], np.empty((len(texts), heads), np.float32)
    ends = (ctypes.c_int64 * len(raw))(*accumulate(map(len, raw)))
    library.ngrams_scores(b"".join(raw), ends, len(raw), BITS, STEP, _at(weights.codes), heads, _at(out))
    return out * weights.units


def get_ready() -> None:
    """Compile what is compiled at first use, so that no text waits for it."""
    _library()


def _score(found: Buckets, weights: Weights) -> Floats:
    total: Floats = weights.codes[found].sum(0) / np.float32(max(1, len(found))) ** 0.5
    return total.astype(np.float32)


def _windows(tokens: list[bytes]) -> list[list[bytes]]:
    count = 1 if len(tokens) <= WINDOW else 1 + -(-(len(tokens) - WINDOW) // STEP)
    return [tokens[i * STEP : i * STEP + WINDOW] for i in range(count)]


def _plain(tokens: Sequence[bytes]) -> Buckets:
    """The same in numpy: a hash of any stretch is a difference of prefix sums, times a power of the base."""
    text = b" " + b" ".join(tokens) + b" "
    data = np.frombuffer(text, np.uint8)
    powers, inverse = _powers(len(data) + 1)
    sums = np.append(np.uint64(0), np.cumsum((data.astype(np.uint64) + 1) * inverse[: len(data)], dtype=np.uint64))
    starts = np.cumsum([1, *(len(token) + 1 for token in tokens)])[:-1]
    lengths = np.array([len(token) for token in tokens], np.int64)
    found = [np.zeros(0, np.uint64)]
    for n in LETTERS:
        begins = np.arange(len(data) - n + 1)
        blanks = np.append(0, np.cumsum(data == 32))
        begins = begins[blanks[begins + n - 1] == blanks[begins + 1]]
        found.append(_hash(sums, powers, begins, begins + n) + np.uint64(n))
    for n in WORDS[: len(tokens)]:
        begins, ends = starts[: len(tokens) - n + 1], (starts + lengths)[n - 1 :]
        found.append(_hash(sums, powers, begins, ends) + np.uint64(16 + n))
    mixed = np.concatenate(found) * np.uint64(MIX)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(MIX)
    return np.unique(np.concatenate([(mixed >> np.uint64(64 - BITS)).astype(np.int32), _related(tokens)]))


def _related(tokens: Sequence[bytes]) -> Buckets:
    """Buckets of ideas and of pairs of them."""
    found = set()
    for start in range(0, len(tokens), STEP):
        told = [ideas for token in tokens[start : start + STEP] if (ideas := of_token(token))]
        for at, ideas in enumerate(told):
            near = {other for before in told[max(0, at - BACK) : at] for other in before}
            found |= {(min(i, j), max(i, j)) for i in ideas for j in {*near, i}}
    return np.array([(1 << BITS) + i * MOST + j for i, j in found], np.int32)


def _hash(
    sums: NDArray[np.uint64], powers: NDArray[np.uint64], begins: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint64]:
    return (sums[ends] - sums[begins]) * powers[ends - 1]


def _powers(num: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Powers of the base and of its inverse modulo 2 ** 64."""
    base, inverse = np.full(num, BASE, np.uint64), np.full(num, pow(BASE, -1, 1 << 64), np.uint64)
    base[0] = inverse[0] = 1
    return np.cumprod(base, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)


def _at(array: NDArray[np.generic]) -> int:
    return array.ctypes.data


@cache
def _library() -> ctypes.CDLL | None:
    library = native(Path(__file__).with_name("ngrams.cpp"))
    if library is not None:
        pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        shared: list[Any] = [ctypes.c_char_p, number, count, number, number, pointer]
        library.ngrams_buckets.argtypes = [*shared, number, pointer]
        library.ngrams_buckets.restype = number
        library.ngrams_scores.argtypes = [ctypes.c_char_p, pointer, number, count, number, pointer, count, pointer]
        library.ngrams_scores.restype = None
        keys, firsts, ideas = table()
        library.ngrams_lexicon.argtypes = [pointer, pointer, pointer, count]
        library.ngrams_lexicon(_at(keys), _at(firsts), _at(ideas), SLOTS_BITS)
    return library
