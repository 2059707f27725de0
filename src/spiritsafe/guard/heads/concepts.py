"""What words are about: ideas with their English and German words, so that labels in one language serve the other.

`concepts.txt` is ours: an idea a line, words folded, `*` for any ending. A token may be about several ideas.
"""

from collections import defaultdict
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST = 128  # ideas
BACK = 4  # a token's ideas are paired with those of so many tokens before it that have any
SLOTS_BITS = 14
LONGEST = 24  # letters of a word in the list
BASE, MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
WHOLE = 0x5851F42D4C957F2D  # told apart: a whole word from the beginning of one
Table = tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int32]]


@cache
def words() -> dict[str, tuple[int, ...]]:
    """The ideas of each word of the list, by number; `*` at its end stands for any ending."""
    found: dict[str, list[int]] = defaultdict(list)
    lines = Path(__file__).with_name("concepts.txt").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(line for line in lines if ":" in line and not line.startswith("#")):
        for word in dict.fromkeys(line.partition(":")[2].split()):
            found[word].append(number)
    return {word: tuple(numbers) for word, numbers in found.items()}


@lru_cache(maxsize=1 << 16)
def of_token(token: bytes) -> tuple[int, ...]:
    """The ideas that a token of a folded text is about, ascending."""
    text = token.decode("utf-8", "replace")
    spelled = [text, *(f"{text[:end]}*" for end in range(2, min(len(text), LONGEST) + 1))]
    return tuple(sorted({number for word in spelled for number in words().get(word, ())}))


@cache
def table() -> Table:
    """The words for C++: a hash table of keys (0 none), where each one's ideas begin, and these, -1 after each."""
    keys, firsts = np.zeros(1 << SLOTS_BITS, np.uint64), np.zeros(1 << SLOTS_BITS, np.int32)
    numbers: list[int] = []
    for word, ideas in words().items():
        key = _key(word)
        slot = (key * MIX & (1 << 64) - 1) >> 64 - SLOTS_BITS
        while keys[slot]:
            slot = (slot + 1) % len(keys)
        keys[slot], firsts[slot] = key, len(numbers)
        numbers += [*ideas, -1]
    return keys, firsts, np.array(numbers, np.int32)


def _key(word: str) -> int:
    key = 0
    for byte in word.removesuffix("*").encode():
        key = (key * BASE + byte + 1) & (1 << 64) - 1
    return key if word.endswith("*") else key ^ WHOLE
