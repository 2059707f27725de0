"""A text as the risk control reads it: one spelling for what looks the same, and what an encoding hides.

    normalise   one form of a text: NFKC, nothing invisible, Latin letters for their look-alikes, single blanks
    fold        lower case in ASCII: 'Gefährlich' and 'gefaehrlich' become one; other scripts stay as they are
    views       a text's folded form, and beside it what leetspeak, spelling out, base64 and rot13 hide

All take time linear in the text. Not covered: images of text, other ciphers, words that a model only infers.
"""

import base64
import binascii
import codecs
import re
import unicodedata
from functools import partial

# Letters of other scripts that look like Latin ones (a subset of Unicode's confusables, UTS 39).
_LIKE_LATIN = str.maketrans(
    "авеёзіїјкмнопрсѕтуүхһԁԛԝɡьАВЕІЈКМНОРСЅТУХαβγεηικνορστυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧօսոıꓐꓳᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "abee3iijkmhonpcstyyxhdqwgbABEIJKMHOPCSTYXabyenikvopotuxwABEZHIKMNOPTYXouniBOabcdeghijklmnoprstuvwyz",
)
_STRANGE = re.compile(r"[\u0370-\u058f\ua4d0-\ua4ff\u0131\u0250-\u02af\u1d00-\u1d7f\ua731]")
_LETTERS = re.compile(r"[^\W\d_]+")
_MARK_RANGES = (
    (0x300, 0x370),
    (0x483, 0x48A),
    (0x1AB0, 0x1B00),
    (0x1DC0, 0x1E00),
    (0x20D0, 0x2100),
    (0xFE00, 0xFE10),
    (0xFE20, 0xFE30),
    (0xE0100, 0xE01F0),
)
_MARKS = dict.fromkeys(code for first, end in _MARK_RANGES for code in range(first, end))
_CONTROL = dict.fromkeys(code for code in (*range(32), 127) if not chr(code).isspace())
_BLANK = dict.fromkeys([0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800], " ")
_GERMAN = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}
)
_LEET = str.maketrans("013457@$!|", "oieastasii")
_LEET_L = str.maketrans("013457@$!|", "oleastasll")
_LEET_WORD = re.compile(r"[a-z0-9@$!|]{3,}")
_LEET_MIX = re.compile(r"[a-z][013457@$!|][a-z]|[a-z]{2}[013457@$]|[013457@$][a-z]{2}")
_SPELLED = re.compile(r"(?<![a-z0-9])[a-z]([ .\-_*])[a-z](?:\1[a-z]){2,}(?![a-z0-9])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_WORD = re.compile(r"[a-z]+")
_COMMON = (
    "the how what you for and with that this make build about write tell give from into your can are "
    "wie ich der die das und ein eine mit nicht mir fuer auf ist"
)
_ROT13 = frozenset(codecs.encode(_COMMON, "rot13").split())


def normalise(text: str) -> str:
    """One form of a text, for people and encoders: case, umlauts and other scripts are kept. Idempotent."""
    if text.isascii():
        return " ".join((text if text.isprintable() else text.translate(_CONTROL)).split())
    return _shown(_shown(text))  # composing anew after a mark fell away may bring another letter to light


def fold(text: str) -> str:
    """A normalised text in lower case without accents: umlauts as ae, oe, ue, sharp s as ss."""
    low = text.lower()
    if low.isascii():
        return low
    spelled = unicodedata.normalize("NFKD", low.casefold().translate(_GERMAN))
    return " ".join(spelled.translate(_MARKS).split())


def views(text: str) -> tuple[str, ...]:
    """The folded text first; then, where there is one, the readings that an encoding hides, each folded."""
    shown = normalise(text)
    base = fold(shown)
    found = [base, *_plain(base)]
    for hidden in _decoded(shown, depth=2):
        found += [fold(hidden), *_plain(fold(hidden))]
    return tuple(dict.fromkeys(found))


def _shown(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text.translate(_BLANK))
    kept = plain if plain.isascii() else plain.translate(_MARKS)
    if not kept.isprintable():
        kept = "".join(c for c in kept if c.isprintable() or c.isspace())
    if not kept.isascii() and _STRANGE.search(kept):
        kept = _latin(kept)
    return " ".join(unicodedata.normalize("NFKC", kept).split())


def _latin(text: str) -> str:
    """Words of look-alikes in Latin letters: those that mix scripts; all, where no word is truly of another script."""
    words = {word: word.translate(_LIKE_LATIN) for word in set(_LETTERS.findall(text)) if _STRANGE.search(word)}
    disguised = {word: latin for word, latin in words.items() if not _STRANGE.search(latin)}
    if len(disguised) < len(words):
        disguised = {word: latin for word, latin in disguised.items() if re.search(r"[A-Za-z]", word)}
    return _LETTERS.sub(lambda found: disguised.get(found.group(), found.group()), text)


def _plain(base: str) -> list[str]:
    """Readings of a folded text without leetspeak, spelled-out words and rot13."""
    found = []
    if _LEET_MIX.search(base):
        found += [_LEET_WORD.sub(partial(_unleet, table), base) for table in (_LEET, _LEET_L)]
    if _SPELLED.search(base):
        found.append(_SPELLED.sub(lambda word: re.sub(r"[ .\-_*]", "", word.group()), base))
    if len(_ROT13.intersection(_WORD.findall(base))) >= 2:
        found.append(codecs.encode(base, "rot13"))
    return found


def _unleet(table: dict[int, int], found: re.Match[str]) -> str:
    word = found.group()
    return word.translate(table) if _LEET_MIX.search(word) else word


def _decoded(shown: str, *, depth: int) -> list[str]:
    """What runs of base64 say, where that is text; `depth` times over."""
    found = []
    for run in _BASE64.findall(shown) if depth else ():
        data = run.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            said = base64.b64decode(data + "=" * (-len(data) % 4)).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
        if said.isprintable() or "\n" in said:
            inner = normalise(said)
            found += [inner, *_decoded(inner, depth=depth - 1)]
    return found
