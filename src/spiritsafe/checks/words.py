"""Texts as words, compared as NFKC with case folded, without invisible characters; `1,000.50` is `1000.5`.

A token is a word, a number, an operator between numbers, any other symbol (if wanted), or one character of a
script that writes no spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan). A German `1.000` is read as the number 1.
"""

import re
import unicodedata

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
