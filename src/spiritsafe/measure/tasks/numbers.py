"""The number that an answer states, however it is written: English, German, French, Swiss, Indian, LaTeX, words.

A numeral that two notations read differently (`1.000` is a thousand in German, one in English) has both values, and
the answer is right if one of them is. Not read: roman numerals, number words of other languages than English and
German, sums that were not carried out.
"""

import re
import unicodedata
from fractions import Fraction

from spiritsafe.measure.task import Item
from spiritsafe.measure.tasks.stated import marked, proper, without_closing
from spiritsafe.measure.tasks.words import worded

MINUS = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"), "-")
SUPERSCRIPT = dict.fromkeys(map(ord, "⁰¹²³⁴⁵⁶⁷⁸⁹"), "")
# A digit on a key cap: the digit, a selector, the cap.
KEYCAP = re.compile("[\ufe0e\ufe0f]|\u20e3")
UNIT_POWER = re.compile(r"(?<=[A-Za-zµΩ}])(?:\^|\*\*)\{?-?\d+\}?")
LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname)\s*\{([^{}]*)\}")
VULGAR = re.compile("(?<=\\d)(?=[¼-¾⅐-⅞])")
# "(10-5)", "(0.25 hours)": how a number before it came about, or the same again.
ASIDE = re.compile(r"\([^()]*[-+*/x×÷=A-Za-z][^()]*\)")
GROUP = r"(?:\{,\}|\\[,;! ]|[ '’_])"
# Longest first: a plain numeral would take the beginning of a grouped one.
NUMERAL = re.compile(
    rf"(?:(?<![\w.,])|(?<=[$€£¥])|(?<=\bca\.))(?P<sign>-\s?)?[$€£¥]?(?P<sign2>-)?"
    rf"(?P<body>\d{{1,3}}(?:{GROUP}\d{{3}})+(?:[.,]\d+)?(?!\d)"
    rf"|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?:\.\d+)?(?!\d)"
    rf"|\d+(?:[.,]\d+)*|\.\d+)"
    rf"(?P<power>[eE][+-]?\d+(?!\w)|\s*(?:[x×*]|\\times|\\cdot)\s*10\^\{{?-?\d+\}}?)?"
    rf"(?:\s*/\s*(?P<below>\d+)(?![\d/.,]))?(?P<clock>:00\b)?"
    rf"\s*(?P<scale>k\b|K\b|thousand\b|Tausend\b|mille\b|mil\b|Mio\b|million(?:s|en|es)?\b|millón\b|millones\b|"
    rf"Million(?:en)?\b|billion(?:s)?\b|Milliarde(?:n)?\b|milliard(?:s)?\b)?"
)
SCALES = {"k": 3, "t": 3, "mille": 3, "mil": 3, "mio": 6, "milli": 6, "mill": 6, "b": 9, "milliard": 9}
MIXED = re.compile(r"(\d+)\s+(\d+)\s*/\s*(\d+)(?!\d)")


def same_number(item: Item, answer: str) -> bool:
    """Whether the number that the answer states is the target."""
    return bool(values(item.target) & stated_values(answer))


def stated_values(answer: str) -> set[Fraction]:
    """The values of the number that an answer states: marked as the answer, else its last; empty if there is none."""
    text = proper(answer)
    part = marked(text)
    if part:
        part = part.rpartition("=")[2] if re.search(r"=\s*\D{0,3}\d", part) else part
        found = _all_values(part)
        if found:
            return found[0]
        return _worded(part)
    text = without_closing(text)
    found = _all_values(ASIDE.sub(" ", text)) or _all_values(text)
    return found[-1] if found else _worded(text)


def values(text: str) -> set[Fraction]:
    """The values of a numeral: `1,000` is a thousand and, as a decimal, one."""
    found = _all_values(text)
    return found[-1] if found else set()


def _all_values(text: str) -> list[set[Fraction]]:
    """The values of each numeral of a text, in order."""
    return [read for numeral in NUMERAL.finditer(_plain(text)) if (read := _values(numeral))]


def _plain(text: str) -> str:
    """A text in which numerals are written in ASCII, without exponents of units and asides."""
    # Before NFKC, which would make digits of superscripts.
    text = VULGAR.sub(" ", KEYCAP.sub("", text.translate(SUPERSCRIPT)))
    text = unicodedata.normalize("NFKC", text).translate(MINUS).replace("\u2044", "/")
    text = LATEX_TEXT.sub(r" \1", LATEX_FRACTION.sub(r"\1/\2", text)).replace(r"\$", "$").replace(r"\%", "%")
    text = re.sub(r"\*\*(?!\d)|__|(?<=\d)\*\*(?!\s*\d)", "", UNIT_POWER.sub("", text))
    # A minus between two operands subtracts, and between two numbers it may be a range: no sign.
    text = re.sub(r"(?<=[\w)%])-(?=[\d$€£¥.])", " - ", text)
    text = re.sub(r"(?<=[\w)%]) - (?=[\d$€£¥.])", " – ", text)
    return MIXED.sub(_mixed, text)


def _mixed(found: re.Match[str]) -> str:
    whole, above, below = (int(part) for part in found.groups())
    proper_part = 0 < above < below
    return f"{whole * below + above}/{below}" if proper_part else found.group()


def _values(numeral: re.Match[str]) -> set[Fraction]:
    sign = -1 if numeral["sign"] or numeral["sign2"] else 1
    factor = Fraction(10) ** (_power(numeral["power"]) + _scale(numeral["scale"]))
    read = {sign * value * factor for value in _readings(numeral["body"])}
    if numeral["below"] is None:
        return read
    below = int(numeral["below"])
    if not below:
        return set()
    # "20/20" is also the score 20 of 20.
    full = {value for value in read if value == below}
    return {value / below for value in read} | full


def _readings(body: str) -> set[Fraction]:
    """What the digits and separators of a numeral may mean."""
    body = re.sub(GROUP, "", body)
    if re.fullmatch(r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?", body):
        return {Fraction(body.replace(",", ""))}
    marks = re.findall("[.,]", body)
    whole = Fraction(re.sub("[.,]", "", body))
    if not marks:
        return {whole}
    last = max(body.rfind("."), body.rfind(","))
    decimal = Fraction(re.sub("[.,]", "", body[:last]) + "." + body[last + 1 :])
    grouped = re.fullmatch(r"\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*", body) is not None
    if not grouped:
        return {decimal}
    # Several equal marks can only group; a leading 0 can only be followed by decimals.
    if len(marks) > 1:
        return {whole}
    return {decimal} if body.startswith("0") else {whole, decimal}


def _power(text: str | None) -> int:
    found = re.search(r"-?\d+\}?$", text.replace("+", "")) if text else None
    return int(found.group().rstrip("}")) if found else 0


def _scale(text: str | None) -> int:
    word = (text or "").lower()
    return next((SCALES[stem] for stem in sorted(SCALES, key=len, reverse=True) if word.startswith(stem)), 0)


def _worded(text: str) -> set[Fraction]:
    found = worded(text)
    return set() if found is None else {Fraction(found)}
