"""Words behind a shift of the alphabet, backwards, cut in pieces or spelled: found by a table of what they look like.

A lexicon knows the commonest words and `keys`, the words that a policy looks for. Its table holds, by hash, what each
looks like under every shift, in the mirrored alphabet and backwards; `folding.cpp` looks each word of a text up in it,
and each two to four neighbouring pieces put together. Only texts with hits are read again here.
"""

import ctypes
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from spiritsafe.guard.codes import NATO

# Common words of requests, English and German; of a text in a cipher two of them are soon met.
_COMMON = """
the how what why when where who you your for and with that this make made build write tell give from into can
are was about would could should please explain show need want have has not but they them there here home
house at to do is it in on of my me we be as an or if so by up out all any some more get use buy find keep
help best way work does did will just like know good people time without step steps list create instructions
me his her its our wie ich der die das und ein eine einen mit nicht mir fuer auf ist was wer warum wann baue
bauen mache machen kann man sie den dem von zu im zum zur bei nach aus ueber oder schreibe erklaere bitte
hause einem einer sich auch"""
_A = string.ascii_lowercase
SHIFTS = tuple(range(1, 26))
MIRRORED, BACKWARDS = 25, 26  # bits after those of the shifts
NAMES, KEY, DOUBLED, HIDDEN_KEY, STARTS = 1 << 27, 1 << 28, 1 << 29, 1 << 30, 1 << 31
_STARTERS = frozenset(("how", "what", "why", "explain", "tell", "give", "write", "wie", "was", "erklaere"))
CIPHERS = (1 << 27) - 1
ENOUGH_LETTERS = 6  # of words that are common under one cipher
MOST_PIECES, WIDEST_GAP = 4, 6  # of one word, and the characters between them
SHORTEST_GLUED = 4  # "do x" is two words
_WORD = re.compile(r"[a-z]+")
_STARRED = re.compile(r"(?<![a-z*])[a-z][a-z*]*[a-z*](?![a-z*])")
_OFFSET, _PRIME, _MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1  # FNV-1a


class Lexicon:
    """The commonest words, and the words that a policy looks for."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.keys = frozenset(key for key in keys if len(key) >= 3 and key.isascii() and key.isalpha())
        self._common = frozenset(_COMMON.split())
        self._known = self.keys | self._common

    @cached_property
    def marks(self) -> Mapping[str, int]:
        """What a word of a text may be, as bits, for every word that is any."""
        found: dict[str, int] = {}

        def add(word: str, bits: int) -> None:
            found[word] = found.get(word, 0) | bits

        for word in self._common:
            if len(word) >= 3:
                for cipher in range(27):
                    add(_under(word, cipher), 1 << cipher)
        for key in self.keys:
            add(key, KEY)
            if len(key) >= 4:
                add(_single(key), DOUBLED)
                for hidden in (_under(key, 12), _under(key, MIRRORED), *([key[::-1]] if len(key) > 4 else [])):
                    add(hidden, HIDDEN_KEY)
        for name in NATO:
            add(name, NAMES)
        for word in _STARTERS:
            add(word, STARTS)
        ordinary = {
            word: bits & (KEY | DOUBLED | NAMES | STARTS) for word, bits in found.items() if word in self._known
        }
        return {word: bits for word, bits in (found | ordinary).items() if bits}

    @cached_property
    def table(self) -> tuple[Any, int]:
        """The marks by hash, open addressing, as `folding.cpp` reads it: pairs of hash and bits, and their number."""
        size = 1 << (2 * len(self.marks)).bit_length()
        slots = [0] * (2 * size)
        for word, bits in self.marks.items():
            at = (code := _hash(word)) & (size - 1)
            while slots[2 * at + 1]:
                at = (at + 1) & (size - 1)
            slots[2 * at] = code
            slots[2 * at + 1] = bits
        return (ctypes.c_uint64 * (2 * size))(*slots), size

    @cached_property
    def _sizes(self) -> Mapping[str, Sequence[int]]:
        """How long the known words with these two last letters are; words of one letter under that letter and any."""
        sizes: dict[str, set[int]] = {}
        for word in self._known:
            for last in [word[-2:]] if len(word) > 1 else [word, *(letter + word for letter in _A)]:
                sizes.setdefault(last, set()).add(len(word))
        return {last: sorted(each) for last, each in sizes.items()}

    def ciphers(self, fold: str) -> list[str]:
        """Readings of a folded text out of each cipher in which it has common words."""
        letters: dict[int, int] = {}
        hits: dict[int, int] = {}
        hidden = False
        for word in _WORD.findall(fold):
            bits = self.marks.get(word, 0)
            hidden |= bool(bits & HIDDEN_KEY)
            for cipher in _bits(bits & CIPHERS):
                letters[cipher] = letters.get(cipher, 0) + len(word)
                hits[cipher] = hits.get(cipher, 0) + 1
        found = []
        for cipher in (c for c, size in letters.items() if size >= ENOUGH_LETTERS and hits[c] > 1):
            found.append(_plain(fold, cipher))
            if cipher == BACKWARDS:
                found.append(fold[::-1])
        if hidden:
            found.append(_WORD.sub(lambda word: self._key_behind(word.group()), fold))
        return found

    def turned(self, fold: str) -> str:
        """A folded text with its words in the other order, if it ends as questions start."""
        words = fold.split()
        last = _WORD.findall(words[-1]) if words else []
        return " ".join(reversed(words)) if last and last[-1] in _STARTERS else fold

    @cached_property
    def _masked(self) -> Mapping[str, str]:
        """The words that are looked for, by what they look like with one letter or all vowels starred."""
        masked: dict[str, str] = {}
        for key in sorted(self.keys):
            forms = [key[:i] + "*" + key[i + 1 :] for i in range(1, len(key) - 1)]
            forms.append(re.sub(r"(?<=.)[aeiou]", "*", key))
            for form in forms:
                masked.setdefault(form, key)
        return masked

    def unmasked(self, fold: str) -> str:
        """A folded text with starred words that are looked for written out."""
        return _STARRED.sub(lambda word: self._masked.get(word.group(), word.group()), fold)

    def whole(self, fold: str) -> str:
        """A folded text with words put together that are cut in pieces or have letters doubled."""
        words = [(found.group(), *found.span()) for found in _WORD.finditer(fold)]
        said: list[str] = []
        at = index = 0
        while index < len(words):
            taken, key = self._glued(words, index)
            start, end = words[index][1], words[index + taken - 1][2]
            said += [fold[at:start], key]
            at = end
            index += taken
        return "".join([*said, fold[at:]])

    def _glued(self, words: Sequence[tuple[str, int, int]], index: int) -> tuple[int, str]:
        """How many pieces from here on are one word, and which."""
        word, glued = words[index][0], words[index][0]
        for taken in range(2, MOST_PIECES + 1):
            nearer = words[index + taken - 2 : index + taken]
            if len(nearer) < 2 or nearer[1][1] - nearer[0][2] > WIDEST_GAP:
                break
            glued += nearer[1][0]
            if len(glued) >= SHORTEST_GLUED and self.marks.get(glued, 0) & KEY:
                return taken, glued
        if not self.marks.get(word, 0) & KEY and self.marks.get(_single(word), 0) & DOUBLED:
            return 1, next(key for key in sorted(self.keys) if _single(key) == _single(word))
        return 1, word

    def _key_behind(self, word: str) -> str:
        if not self.marks.get(word, 0) & HIDDEN_KEY:
            return word
        return next((k for k in (_plain(word, c) for c in (12, MIRRORED, BACKWARDS)) if k in self.keys), word)

    def words_in(self, letters: str) -> str:
        """Letters without blanks as words, as many of them known as can be, the fewer the better."""
        best = [(0, 0, 0)]  # letters in no known word, words, where the last begins
        for end in range(1, len(letters) + 1):
            unknown, words, _ = best[end - 1]
            choice = (unknown + 1, words + (best[end - 1][2] >= 0), -1)
            for start in (end - size for size in self._sizes.get(letters[max(0, end - 2) : end], ()) if size <= end):
                if letters[start:end] in self._known:
                    unknown, words, _ = best[start]
                    choice = min(choice, (unknown, words + 1, start))
            best.append(choice)
        parts: list[tuple[bool, str]] = []
        end = len(letters)
        while end:
            start = best[end][2]
            parts.append((start < 0, letters[end - 1 : end] if start < 0 else letters[start:end]))
            end = end - 1 if start < 0 else start
        parts.reverse()
        groups = groupby(parts, key=lambda part: part[0])
        return " ".join(
            "".join(text for _, text in group) if unknown else " ".join(text for _, text in group)
            for unknown, group in groups
        )

    def parted(self, word: str) -> str:
        """A long word as the known words that it is made of, or as it is if they are not most of it."""
        words = self.words_in(word)
        known = sum(len(part) for part in words.split() if len(part) > 1 and part in self._known)
        return words if known >= 0.7 * len(word) else word  # a compound of one language has a third at most

    def is_speech(self, fold: str) -> bool:
        """Whether a folded text has two common words, as nearly every sentence has."""
        return sum(word in self._common for word in _WORD.findall(fold)) > 1


def _under(word: str, cipher: int) -> str:
    """How a word looks under a cipher."""
    if cipher == BACKWARDS:
        return word[::-1]
    return word.translate(_TO[cipher])


def _plain(text: str, cipher: int) -> str:
    """A folded text out of a cipher, word by word."""
    if cipher == BACKWARDS:
        return _WORD.sub(lambda word: word.group()[::-1], text)
    return text.translate(_FROM[cipher])


_TO = [str.maketrans(_A, _A[n:] + _A[:n]) for n in SHIFTS] + [str.maketrans(_A, _A[::-1])]
_FROM = [str.maketrans(_A[n:] + _A[:n], _A) for n in SHIFTS] + [str.maketrans(_A, _A[::-1])]


def _single(word: str) -> str:
    """A word with no letter twice in a row."""
    return "".join(letter for letter, _ in groupby(word))


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _hash(word: str) -> int:
    code = _OFFSET
    for letter in word.encode():
        code = (code ^ letter) * _PRIME & _MASK
    return code
