"""What nobody sees in a text and a model may read all the same: tag characters, selectors, zero-width bits, overrides.

    shown_of     the text as it is shown: stretches under a right-to-left override turned round, what is erased left out
    words_of     what the unseen characters spell
    is_carrier   whether a run of them spells nothing that can be read: it may carry anything

A flag's tags (England, Scotland, Wales), single joiners and marks have their honest use; runs of them have none.
"""

import re
import unicodedata
from itertools import groupby

_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
_TAGS = re.compile("[\U000e0020-\U000e007e]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_JOINERS = re.compile("[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufeff]")
_OVERRIDE = re.compile("[\u202e\u2067]([^\u202c\u202d\u2066\u2068\u2069\n]*)[\u202c\u2069]?")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A family emoji needs four joiners and as many selectors, never side by side; eight in a row say something.
MOST_UNSEEN = 8
MOST_MARKS = 24  # on one letter: stacked for show rarely goes beyond a dozen


def shown_of(text: str) -> str:
    """The text in the order in which it is shown."""
    return _OVERRIDE.sub(lambda found: found[1][::-1], _TERMINAL.sub(" ", _erased(text)))


def _erased(text: str) -> str:
    """A text without the letters that backspaces take back."""
    if "\b" not in text:
        return text
    kept: list[str] = []
    for letter in text:
        if letter != "\b":
            kept.append(letter)
        elif kept:
            kept.pop()
    return "".join(kept)


def words_of(text: str) -> str:
    """What the unseen characters spell, empty if nothing."""
    rest = _FLAG.sub("", text)
    tags = "".join(chr(ord(tag) - 0xE0000) for tag in _TAGS.findall(rest)).strip()
    return " ".join(part for part in (tags, _by_selectors(rest), _by_joiners(rest)) if part)


def is_carrier(text: str) -> bool:
    """Whether more unseen characters stand side by side than any writing needs, and spell nothing."""
    for kind, letters in groupby(_FLAG.sub("", text), _kind):
        run = "".join(letters) if kind else ""
        if kind == "mark" and len(run) >= MOST_MARKS:
            return True
        if kind == "unseen" and len(run) >= MOST_UNSEEN and not _is_read(run, text):
            return True
    return False


def _is_read(run: str, text: str) -> bool:
    if not _TAGS.sub("", run):
        return any(chr(ord(tag) - 0xE0000).isalnum() for tag in run)
    if not _SELECTORS.sub("", run):
        return bool(_by_selectors(text))
    return not _JOINERS.sub("", run) and bool(_by_joiners(text))


def _by_selectors(text: str) -> str:
    return _if_words(bytes(map(_byte, _SELECTORS.findall(text))).decode("utf-8", "ignore"))


def _by_joiners(text: str) -> str:
    return " ".join(filter(None, (_if_words(_by_bits(_JOINERS.findall(text), one)) for one in (0, 1))))


def _kind(letter: str) -> str:
    if letter.isascii() and letter.isprintable():
        return ""
    if _SELECTORS.match(letter) or not (letter.isprintable() or letter.isspace()):
        return "unseen"
    return "mark" if unicodedata.category(letter) in ("Mn", "Me") else ""


def _byte(selector: str) -> int:
    code = ord(selector)
    return code - 0xFE00 if code < 0xE0100 else code - 0xE0100 + 16


def _by_bits(joiners: list[str], one: int) -> str:
    """Two kinds of joiners read as bits, eight a letter; `one` says which of them is 1."""
    kinds = sorted(set(joiners))
    if len(kinds) != 2 or len(joiners) < 16:
        return ""
    bits = "".join("1" if joiner == kinds[one] else "0" for joiner in joiners)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8)).decode("utf-8", "ignore")


def _if_words(text: str) -> str:
    said = "".join(c for c in text if c.isprintable())
    letters = sum(map(str.isalpha, said))
    return said if letters >= 4 and letters + said.count(" ") >= 0.6 * len(said) else ""
