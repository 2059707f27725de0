"""Variety of sampled answers: distinct n-grams (arXiv 1510.03055), and how much of the original's tail still occurs.

Words are lower-cased runs of letters and digits. Both are statistics of all prompts together, given as jackknife
values of the prompts: their mean is the statistic. Not covered: whether a rare word stands where it belongs.
"""

import re
from collections import Counter
from collections.abc import Sequence

from spiritsafe.evidence import jackknife_values

WORD = re.compile(r"\w+")
Gram = tuple[str, ...]


def grams(text: str, n: int) -> list[Gram]:
    """The n-grams of a text's words."""
    words = WORD.findall(text.lower())
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(answers: Sequence[Sequence[str]], n: int) -> list[float]:
    """Distinct n-grams of all answers over all n-grams, as jackknife values; `answers` (prompts, samples).

    Longer answers have a smaller share: compare models at equal lengths only.
    """
    found = [Counter(g for text in texts for g in grams(text, n)) for texts in answers]
    holders = Counter(g for counts in found for g in counts)
    total, whole = sum(c.total() for c in found), len(holders)
    left_out = [_share(whole - sum(holders[g] == 1 for g in counts), total - counts.total()) for counts in found]
    return jackknife_values(_share(whole, total), left_out)


def has_rare(original: Sequence[Sequence[str]], *, n: int, most: int) -> bool:
    """Whether the original's draws hold rare n-grams at all."""
    return bool(_rare(original, n, most))


def coverage(original: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], *, n: int, most: int) -> list[float]:
    """Share of the original's rare n-grams that `answers` still hold, as jackknife values.

    Rare is what the original's own draws to the same prompts hold at most `most` times. Another draw of the original
    covers well below 1: its share is what a perfect copy is to be compared with.
    """
    homes, found = _holders(original, n), _holders(answers, n)
    rare = _rare(original, n, most)
    covered = sum(bool(found.get(g)) for g in rare)
    left_out = []
    for prompt in range(len(original)):
        gone = [g for g in rare if homes[g] == {prompt}]
        lost = sum(bool(found.get(g)) for g in gone)
        lost += sum(found.get(g) == {prompt} for g in rare if homes[g] != {prompt})
        left_out.append(_share(covered - lost, len(rare) - len(gone)))
    return jackknife_values(_share(covered, len(rare)), left_out)


def _rare(original: Sequence[Sequence[str]], n: int, most: int) -> list[Gram]:
    counts = Counter(g for texts in original for text in texts for g in grams(text, n))
    return [g for g, count in counts.items() if count <= most]


def _holders(answers: Sequence[Sequence[str]], n: int) -> dict[Gram, set[int]]:
    """The prompts whose answers hold each n-gram."""
    found: dict[Gram, set[int]] = {}
    for prompt, texts in enumerate(answers):
        for gram in {g for text in texts for g in grams(text, n)}:
            found.setdefault(gram, set()).add(prompt)
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
