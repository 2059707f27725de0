"""The letter of a multiple-choice question that an answer states; "" if it states none, or more than one."""

import re
import unicodedata

from spiritsafe.measure.tasks.stated import MARKUP, marked, proper

# Cyrillic and Greek capitals that look like Latin ones.
LIKE_LATIN = str.maketrans("АВСЕНКМОРТХΑΒΕΗΙΚΜΝΟΡΤΧ", "ABCEHKMOPTXABEHIKMNOPTX")
# Words after a letter A that show that it is no article.
NO_ARTICLE = (
    "is|was|because|since|as|and|or|seems|looks|appears|fits|best|would|could|must|can|should|makes|are|for|due|wrong|"
    "right|correct|false|true|not|isn|wasn|then|but|over"
)
OPTION = re.compile(
    r"\b(?:option|choice|choose|select|pick|letter|answer)\s*[:=]?\s*\(?([A-Z])\b(?!['’]t)", re.IGNORECASE
)
# "A is wrong", "B: yes.": the word must end there, or "B: not enough information" would refute B.
VERDICT = re.compile(
    r"\(?\b([A-Z])\b[).]?\s*(?::|-|–|=|\bis\b|\bare\b|\bwas\b|\bseems\b)\s*"
    r"(?:(?P<no>not\b(?=\s+(?:right|true|correct|it|the)\b)|(?:no|not|wrong|false|incorrect|unlikely|impossible|falsch|nein)"
    r"(?=\s*(?:[.,;!)\n]|\Z)))"
    r"|(?P<yes>(?:yes|right|true|correct|the (?:best|right|correct)|richtig|ja)\b))",
    re.IGNORECASE,
)
DENIALS = "not|neither|nor|isn't|can't be|cannot be|couldn't be|rather than|instead of|except|nicht|weder|noch|kein"
NEGATED = re.compile(
    rf"\b(?:{DENIALS})\s+(?:option\s+)?\(?([A-Z])\b(?:\)?\s*(?:,|or|nor|and|oder|noch)\s*\(?([A-Z])\b)*",
    re.IGNORECASE,
)
EITHER = re.compile(r"(?<![A-Za-z'’])\(?([A-Z])\)?\s*(?:\bor\b|\band\b|/|\boder\b|\bund\b)\s*\(?([A-Z])\b")
ALONE = re.compile(r"\W*([A-Za-z])\W*\Z")
BEGINS = re.compile(r"\W*([A-Za-z])\s*(?:[).:,;\]]|\s-\s|\n)")


def stated_letter(answer: str, letters: str) -> str:
    """The one of `letters` that an answer chooses."""
    text = _plain(proper(answer))
    part = _plain(marked(proper(answer)))
    if part:
        return _one(part, letters) or _begins(part, letters)
    return _one(text, letters)


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).translate(LIKE_LATIN)
    return MARKUP.sub("", text).replace("_", " ").strip()


def _begins(text: str, letters: str) -> str:
    found = BEGINS.match(text) or ALONE.match(text)
    letter = found.group(1).upper() if found else ""
    return letter if letter in letters else ""


def _one(text: str, letters: str) -> str:
    if alone := ALONE.match(text):
        return alone.group(1).upper() if alone.group(1).upper() in letters else ""
    confirmed, refuted = _verdicts(text, letters)
    if len(confirmed) == 1:
        return confirmed.pop()
    either = EITHER.search(text)
    if either and not refuted & set(either.groups()) and set(either.groups()) <= set(letters):
        return ""
    options = [found.upper() for found in OPTION.findall(text) if found.upper() in letters]
    options = [letter for letter in options if letter not in refuted]
    if options:
        return options[-1] if len(set(options)) == 1 else ""
    if begins := _begins(text, letters):
        return "" if begins in refuted else begins
    left = _standing(text, letters) - refuted
    return left.pop() if len(left) == 1 else ""


def _verdicts(text: str, letters: str) -> tuple[set[str], set[str]]:
    """Letters that the text calls right, and those that it calls wrong."""
    confirmed: set[str] = set()
    refuted: set[str] = set()
    for found in VERDICT.finditer(text):
        letter = found.group(1)
        if letter in letters and found["no"]:
            refuted.add(letter)
        elif letter in letters and found["yes"]:
            confirmed.add(letter)
    for found in NEGATED.finditer(text):
        refuted |= {
            letter.upper() for letter in re.findall(r"\b[A-Za-z]\b", found.group()) if letter.upper() in letters
        }
    return confirmed - refuted, refuted


def _standing(text: str, letters: str) -> set[str]:
    """Letters that stand alone, the article and the pronoun left out."""
    standing = set()
    for found in re.finditer(r"(?<![A-Za-z'’])([A-Z])(?![A-Za-z'’])", text):
        letter = found.group(1)
        rest = text[found.end() :]
        article = letter == "A" and re.match(r"\s+[a-z]", rest) and not re.match(rf"\s+(?:{NO_ARTICLE})\b", rest)
        if letter in letters and not article:
            standing.add(letter)
    return standing
