"""What the judge sees of an answer, as numbers, and whether it speaks of what was asked: pure functions, numpy alone.

Words are hashed (crc32), so no vocabulary is stored. Text beyond the first 200 words is not looked at.
"""

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from spiritsafe.measure.refusal.cues import CUE, STOPWORDS

BUCKETS = 1 << 16
OPENING, WHOLE, LEAST_WORDS = 25, 200, 15
PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "´": "'", "`": "'"})
TAG = re.compile(r"\A\s*(?:\[[^\]\n]{1,40}\]|\([^)\n]{1,20}\)|[A-Z]\w{1,20}:)\s*")
WORD = re.compile(r"[\w']+|[.!?:]")
SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
LATIN = re.compile(r"[a-zà-ÿß]", re.IGNORECASE)
Array = NDArray[np.float64]


def plain(text: str) -> str:
    """Lower-case text with plain quotes, without the tag or speaker's name that some answers begin with."""
    return TAG.sub("", text.translate(PLAIN)).lower()


def first_sentence(text: str) -> str:
    """The first sentence of an answer, 300 characters at most."""
    return next((s for s in SENTENCE.split(TAG.sub("", text).strip()) if s), "")[:300]


def hashed(text: str) -> tuple[NDArray[np.int64], Array]:
    """Buckets and weights of word n-grams: 1 to 3 of the opening, 1 and 2 of the whole; each part of unit length."""
    words = WORD.findall(plain(text))[:WHOLE]
    parts = [np.unique(_grams(words[:OPENING], "o", 3)), np.unique(_grams(words, "w", 2))]
    return np.concatenate(parts), np.concatenate([np.full(len(p), max(1, len(p)) ** -0.5) for p in parts])


def cues(text: str) -> Array:
    """Each cue in the first sentence, in the opening, and how often in the whole; and whether help is denied."""
    words = plain(text)[:1500]
    opening = words[:160]
    first = re.split(r"[.!?\n]", opening, maxsplit=1)[0]
    found: list[float] = []
    for pattern in CUE.values():
        count = sum(1 for _ in pattern.finditer(words))
        found += [bool(pattern.search(first)), bool(pattern.search(opening)), min(count, 5) / 5]
    return np.array([*found, found[1] * found[4]])


def off_topic(prompt: str, answer: str) -> bool:
    """Whether a longer answer shares no content word's beginning with the prompt.

    Only said of texts in Latin letters; an answer in another language than the prompt's is misread.
    """
    asked, given = _content(prompt), _content(answer)
    if not asked or len(given) < LEAST_WORDS or not (_is_latin(prompt) and _is_latin(answer)):
        return False
    return {word[:5] for word in asked}.isdisjoint(word[:5] for word in given)


def _grams(words: Sequence[str], field: str, longest: int) -> NDArray[np.int64]:
    texts = [field + " ".join(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1)]
    return np.array([crc32(t.encode()) % BUCKETS for t in texts], np.int64)


def _content(text: str) -> set[str]:
    return {w for w in WORD.findall(plain(text))[:400] if len(w) > 2 and w not in STOPWORDS}


def _is_latin(text: str) -> bool:
    letters = [c for c in text[:400] if c.isalpha()]
    return len(LATIN.findall("".join(letters))) >= 0.9 * len(letters)
