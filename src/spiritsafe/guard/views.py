"""A text as the risk control reads it: folded, and beside it what its disguises hide.

    unseen characters     tags, selectors, zero-width bits, right-to-left overrides (`unseen.py`)
    encodings             base64, base32, hex, numbers, escapes, Morse ..., one within another (`codes.py`)
    ciphers, cut words    shifted, mirrored, backwards, in pieces, spelled (`ciphers.py`)
    letters               leetspeak, CamelCase, words joined by signs, upside down

What looks encoded and cannot be read makes a reading unreadable: a finding of its own. All takes time linear in the
text. Not covered: images of text, ciphers with a key, words that a model only infers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from spiritsafe.guard.ciphers import Lexicon
from spiritsafe.guard.codes import in_words, is_sealed
from spiritsafe.guard.folding import CIPHER, CODED, CONTEXT, JOINED, LEET, MASKED, PIECES, RUN, SPELLED, TURNED, folded
from spiritsafe.guard.normal import fold, normalise
from spiritsafe.guard.unseen import is_carrier, shown_of, words_of

DEEPEST = 5  # encodings within one another; deeper ones are unreadable
MOST_CIPHERS = 4  # of one text, the likeliest
_LEET = tuple(
    str.maketrans("013456789@$!|", f"o{one}eas{six}tbgas{bang}{one}") for one, six, bang in ("igi", "lgl", "lbi")
)
_LEET_WORD = re.compile(r"(?<![a-z0-9@$!|])[a-z2]*+[013456789@$!|][a-z0-9@$!|]*")
_LEET_MIX = re.compile(
    r"[a-z][013-9@$!|][a-z]|[a-z]{2}[013-9@$]|[013-9@$][a-z]{2}|[013-9@$][a-z][013-9@$!|]|[a-z][!|][013-9@$]"
)
_SPELLED = re.compile(r"(?<![a-z0-9])[a-z](?:([.\-_*/|,~+:;])[a-z](?:\1[a-z])*|[ \n][a-z](?:[ \n][a-z])+)(?![a-z0-9])")
_SPELLED_OUT = re.compile(r"(?<![a-z0-9])[a-z]([ .\-_*/|,~+:;])[a-z]\1[a-z](?![a-z0-9])")
_STRESS = re.compile(r"(?<![a-z0-9+/_-])_|_(?![a-z0-9+/_-])")
_AMID = re.compile(r"(?:[a-z]\d){3,}[a-z]?")  # a digit after each letter
_BESIDE = re.compile(r"(?<=[a-z])\d|\d(?=[a-z])")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CAMEL = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,}")
_JOINED = re.compile(r"(?<![a-z])[a-z]++(?:[_\-./+|~*,:;]++[a-z]++){2,}+")
_LONG = re.compile(r"(?<![a-z0-9])[a-z]{16,2000}(?![a-z])")
_UPSIDE_DOWN = str.maketrans("ɐqɔpǝɟƃɓɥıᴉɾʞlɯuodbɹsʇnʌʍxʎz", "abcdefgghiijklmnopqrstuvwxyz")
_TURNED = re.compile("[ɐɔǝɟƃɥɾʞɯɹʇʌʍʎ]")


@dataclass(frozen=True)
class Read:
    """One text as it is read.

    `views` are its folded readings, the text itself first: words are looked for in all of them. `texts` are what a
    model of texts reads: each as it is shown, with its folded readings. `unreadable` says that more may be in it.
    """

    views: tuple[str, ...]
    texts: tuple[tuple[str, tuple[str, ...]], ...]
    unreadable: bool = False


class Reader:
    """Reads texts with a lexicon of the words that are looked for."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def read_all(self, texts: Sequence[str]) -> list[Read]:
        """What each of many texts says, on its face and beneath."""
        found = folded(texts, self.lexicon.table) or [("", CONTEXT)] * len(texts)
        return [
            self._read(text, *known) if known[1] else Read((known[0],), ((text, (known[0],)),))
            for text, known in zip(texts, found, strict=True)
        ]

    def _read(self, text: str, base: str, hides: int) -> Read:
        base = fold(normalise(text)) if hides == CONTEXT else base
        said = [_loose(text)]
        if hides == CONTEXT:
            said += self._beneath(text)
        deep = False
        for surface in tuple(said):
            layer = surface
            for depth in range(DEEPEST + 1):
                inner = "\n".join(map(normalise, in_words(layer).split("\n")))
                if inner == layer:
                    break
                deep |= depth == DEEPEST
                said.append(inner)
                layer = inner
            deep |= is_sealed(layer)
        views = [base]
        texts = [(text, [base])]
        for layer in dict.fromkeys(said):
            shown = " ".join(layer.split())
            bits = hides if layer is said[0] else CONTEXT
            folds = [fold(shown), *self._undone(layer, shown, bits)]
            views += folds
            if layer is said[0]:
                texts[0][1].extend(folds)
            else:
                texts.append((shown, folds))
            texts += [(each, [each]) for each in folds[1:] if self.lexicon.is_speech(each)]
        return self._gathered(views, texts, deep or (hides == CONTEXT and is_carrier(text)))

    def _gathered(self, views: Sequence[str], texts: Sequence[tuple[str, list[str]]], unreadable: bool) -> Read:
        """Each reading once; the text as it stands is left out for models of texts if only what it hides is speech."""
        spoken = [each for each in texts[1:] if self.lexicon.is_speech(each[1][0])]
        if spoken and not self.lexicon.is_speech(texts[0][1][0]):
            texts = spoken
        once = {text: tuple(dict.fromkeys(folds)) for text, folds in texts}
        return Read(tuple(dict.fromkeys(views)), tuple(once.items()), unreadable)

    def _beneath(self, text: str) -> list[str]:
        """What unseen characters, an override and letters upside down say."""
        shown = shown_of(text)
        found = [_loose(shown)] if shown != text else []
        if hidden := words_of(text):
            found.append(f"{_loose(text)}\n{normalise(hidden)}")
        if len(_TURNED.findall(text)) > 2:
            found.append(normalise(text.lower().translate(_UPSIDE_DOWN)[::-1]))
        return found

    def _undone(self, layer: str, shown: str, hides: int) -> list[str]:
        """Folded readings of one layer without leetspeak, spelling, humps, signs between words, pieces and ciphers."""
        base = fold(shown)
        found = []
        if hides & LEET and _LEET_MIX.search(base):
            found += [_LEET_WORD.sub(partial(_unleet, table), base) for table in _LEET]
        if hides & SPELLED and _SPELLED_OUT.search(base):
            lines = "\n".join(fold(line) for line in layer.split("\n"))
            found.append(" ".join(_SPELLED.sub(self._unspelled, lines).replace("_", " ").split()))
        if hides & CODED:
            found.append(fold(_CAMEL.sub(_parted, shown)))
            if _AMID.search(base):
                found.append(_BESIDE.sub("", base))
        if hides & RUN:
            found.append(_LONG.sub(lambda word: self.lexicon.parted(word.group()), base))
        if hides & JOINED:
            found.append(_JOINED.sub(lambda words: re.sub(r"[^a-z]+", " ", words.group()), base))
            if _STRESS.search(base):
                found.append(" ".join(base.replace("_", " ").split()))
        if hides & MASKED:
            found.append(self.lexicon.unmasked(base))
        if hides & PIECES:
            found.append(self.lexicon.whole(base))
        if hides & CIPHER:
            found += self.lexicon.ciphers(base)[: 2 * MOST_CIPHERS]
        if hides & TURNED:
            found.append(self.lexicon.turned(base))
        return [each for each in dict.fromkeys(found) if each != base]

    def _unspelled(self, found: re.Match[str]) -> str:
        spelled = found.group()
        if found[1] or ("\n" in spelled and " " in spelled):
            return re.sub(r"[^a-z\n]+", "", spelled)
        return self.lexicon.words_in(re.sub(r"[^a-z]+", "", spelled))


@lru_cache(maxsize=1)
def _plain_reader() -> Reader:
    return Reader(Lexicon())


def views(text: str) -> tuple[str, ...]:
    """The folded text first; then, if there is one, the readings that a disguise hides, each folded."""
    return views_of([text])[0]


def views_of(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The readings of each of many texts."""
    return [read.views for read in _plain_reader().read_all(texts)]


def _loose(text: str) -> str:
    """A text normalised line by line; what more than one blank parts are lines of their own."""
    return "\n".join(filter(None, map(normalise, re.split(r"[^\S\n]{2,}|\n", text))))


def _parted(word: re.Match[str]) -> str:
    """A word of three humps or more, as words."""
    parts = _HUMPS.split(word.group())
    return " ".join(parts) if len(parts) > 2 else word.group()


def _unleet(table: dict[int, int], found: re.Match[str]) -> str:
    word = found.group()
    return word.translate(table) if _LEET_MIX.search(word) else word
