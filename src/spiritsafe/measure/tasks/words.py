"""Whole numbers written in words, English or German, up to the millions: the last one of a text."""

import re

NAMES = re.compile(r"\w+")
SMALL = NAMES.findall(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = NAMES.findall("twenty thirty forty fifty sixty seventy eighty ninety")
SMALL_DE = NAMES.findall(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
TENS_DE = NAMES.findall("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
UNITS = {word: number for number, word in enumerate(SMALL)} | {word: 10 * number for number, word in enumerate(TENS, 2)}
UNITS_DE = {word: number for number, word in enumerate(SMALL_DE)} | {
    word: 10 * number for number, word in enumerate(TENS_DE, 2)
}
SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
JOINS = {"and", "a"}


def worded(text: str) -> int | None:
    """The last number in words of a text; None if there is none."""
    words = re.findall(r"[a-zäöüß]+", text.lower().replace("-", " "))
    runs: list[list[str]] = [[]]
    for word in words:
        if word in UNITS or word in SCALES or (word in JOINS and runs[-1]):
            runs[-1].append(word)
        else:
            runs.append([])
    values = [value for run in runs if (value := _english(run)) is not None]
    if values:
        return values[-1]
    german = [value for word in words if (value := _german(word)) is not None]
    return german[-1] if german else None


def _english(run: list[str]) -> int | None:
    if not any(word in UNITS or word in SCALES for word in run):
        return None
    total = 0
    current = 0
    for word in run:
        if word in UNITS:
            current += UNITS[word]
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in SCALES:
            total += max(current, 1) * SCALES[word]
            current = 0
    return total + current


def _german(word: str) -> int | None:
    """A number that German writes as one word: zweiundvierzig, dreihundertfünf."""
    if word in UNITS_DE:
        return UNITS_DE[word]
    for scale, value in (("tausend", 1000), ("hundert", 100)):
        left, found, right = word.partition(scale)
        if found:
            above = 1 if left in ("", "ein") else _german(left)
            below = 0 if not right else _german(right.removeprefix("und"))
            return None if above is None or below is None else above * value + below
    left, found, right = word.partition("und")
    ones = 1 if left == "ein" else UNITS_DE.get(left, 0)
    tens = UNITS_DE.get(right, 0)
    return ones + tens if found and 0 < ones < 10 and tens >= 20 else None
