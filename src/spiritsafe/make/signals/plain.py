"""The model of coder.cpp in plain Python: the same bytes, slowly. Its comments are there; change both together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

LIST, SAMPLE, LAST, SLOW, FAST = 96, 255, 254, 250, 100
RATE = [65536 // (2 * n + 3) for n in range(256)]
SHARE = [1024 // (n + 1) for n in range(256)]
KIND = [1 + 2 * min(3, (n.bit_count() + 1) // 2) + (n & 1) for n in range(256)]
WRONG = "the bytes are not such rows"
FULL, WORD = (1 << 64) - 1, 1 << 32
Pair = tuple[int, int]  # id, level
Row = tuple[list[Pair], int, int]
Cell = list[int]


@dataclass
class Slot:
    """A token of a list."""

    id: int
    level: int
    past: int = 1


@dataclass
class List:
    """Tokens of earlier rows of one kind."""

    slots: list[Slot] = field(default_factory=list)
    hand: int = 0


@dataclass
class Candidate:
    """A token that may be in the row, and its slots."""

    id: int
    context: int = 0
    level: int = 0
    source: int = 0
    slots: dict[int, Slot] = field(default_factory=dict)


class Coding:
    """Bits in or out of a binary range coder; `encoding` says which."""

    def __init__(self, data: bytes | None = None) -> None:
        self.encoding, self._range, self._low = data is None, FULL, 0
        self.out, self._data, self.at = bytearray(), data or b"", 0
        self._code = 0
        for _ in range(2):
            self._read()

    def bit(self, cell: Cell, bit: int, most: int) -> int:
        """Write `bit`, or read and return it; `cell` is the probability of 1 in 1/65536 and a count."""
        bound = (self._range >> 16) * cell[0]
        if not self.encoding:
            bit = int(self._code < bound)
        if bit:
            self._range = bound
        else:
            self._range -= bound
            if self.encoding:
                self._add(bound)
            else:
                self._code -= bound
        learn(cell, bit, most)
        if self._range < WORD:
            self._range <<= 32
            if self.encoding:
                self._word()
            else:
                self._read()
        return bit

    def finish(self) -> bytes:
        """All bytes written."""
        self._add(WORD - 1)
        self._word()
        return bytes(self.out)

    def _add(self, what: int) -> None:
        self._low += what
        if self._low > FULL:
            self._low &= FULL
            whole = int.from_bytes(self.out, "big") + 1
            self.out[:] = whole.to_bytes(len(self.out), "big")

    def _word(self) -> None:
        self.out += (self._low >> 32).to_bytes(4, "big")
        self._low = self._low << 32 & FULL

    def _read(self) -> None:
        word = self._data[self.at : self.at + 4].ljust(4, b"\0")
        self._code, self.at = self._code << 32 | int.from_bytes(word, "big"), self.at + 4


class PlainModel:
    """What was coded so far; see coder.cpp."""

    def __init__(self, vocab: int) -> None:
        self._vocab, self._width, self._context = vocab, max(1, (vocab - 1).bit_length()), vocab
        self._num = self._tail = self._last = self._shift = self._shifted = 0
        self._some = False
        self._cells: defaultdict[object, Cell] = defaultdict(lambda: [32768, 0])
        self._lists: defaultdict[Pair, List] = defaultdict(List)

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Bytes of an exchange's rows: (id, level) entries, the tail's level, the token."""
        coding = Coding()
        for entries, tail, token in rows:
            if len(dict(entries)) < len(entries) or not all(0 <= i < self._vocab for i in (*dict(entries), token)):
                raise ValueError("ids are repeated or outside of the vocabulary")
            self._code(coding, dict(entries), tail, token)
        return coding.finish()

    def decode(self, data: bytes, num: int) -> list[Row]:
        """The rows again. Raises `ValueError` where the bytes are not such rows."""
        coding, rows = Coding(data), []
        for _ in range(num):
            rows.append(self._code(coding, {}, 0, 0))
            if coding.at > len(data) + 4:
                break
        if coding.at != len(data) + 4:
            raise ValueError(WRONG)
        return rows

    def _code(self, coding: Coding, wanted: dict[int, int], tail: int, token: int) -> Row:
        n = len(wanted)
        same = coding.bit(self._cells["same"], int(n == self._num), FAST)
        self._num = n = self._num if same else self._tree(coding, "count", 8, n)
        self._tail = tail = self._tree(coding, ("tail", self._tail >> 4), 8, tail)
        found = self._entries(coding, wanted, n) if n else []
        ids = [i for i, _ in found]
        place = self._tree(coding, ("place", tail >> 4), 8, ids.index(token) if token in ids else n)
        self._context = token = ids[place] if place < n else self._down(coding, 1, 0, token)
        return found, tail, token

    def _entries(self, coding: Coding, wanted: dict[int, int], n: int) -> list[Pair]:
        self._shift = self._shifted = 0
        self._some = bool(coding.bit(self._cells["some"], int(SAMPLE in wanted.values()), FAST))
        most = max((v for v in wanted.values() if v != SAMPLE), default=0)
        self._last = self._tree(coding, ("last", self._tail >> 4), 8, most)
        known: dict[int, Candidate] = {}
        keys = [(0, self._context)]
        _gather(known, self._lists[keys[0]], 0, 81)
        top = self._likeliest(coding, known, min(wanted, key=lambda i: (wanted[i], i)) if wanted else 0)
        keys += [(1, top), (2, 0)]
        _gather(known, self._lists[keys[1]], 1, 9)
        _gather(known, self._lists[keys[2]], 2, 1)
        found = [(top, self._tree(coding, ("top", self._tail >> 4), 8, wanted.get(top, 0)))]
        hits = self._hits(coding, known, wanted, top, n - 1)
        found += [(c.id, self._known_level(coding, c, wanted.get(c.id, 0))) for c in hits]
        others = sorted((i, v) for i, v in wanted.items() if i not in known)
        found += self._misses(coding, known, others, n - len(found))
        for which, key in enumerate(keys):
            _renew(self._lists[key], found, {i: c.slots[which] for i, c in known.items() if which in c.slots})
        return found

    def _likeliest(self, coding: Coding, known: dict[int, Candidate], wanted: int) -> int:
        places = list(known)
        place = self._tree(coding, ("likeliest", self._tail >> 4), 7, places.index(wanted) if wanted in known else 127)
        top = places[place] if place < len(places) else self._down(coding, 1, 0, wanted)
        if place >= len(places) and top in known:
            raise ValueError(WRONG)
        known.setdefault(top, Candidate(top))
        return top

    def _hits(
        self, coding: Coding, known: dict[int, Candidate], wanted: dict[int, int], top: int, num: int
    ) -> list[Candidate]:
        hits: list[Candidate] = []
        kind = min(self._tail >> 5, 2) + (self._tail >= 128)
        for c in known.values():
            if len(hits) == num:
                break
            if c.id != top and coding.bit(self._cells["flag", c.context & 1023, kind], int(c.id in wanted), FAST):
                hits.append(c)
        return hits

    def _misses(self, coding: Coding, known: dict[int, Candidate], wanted: list[Pair], num: int) -> list[Pair]:
        ids: list[int] = []
        before = 0
        for k in range(num):
            before = self._next(coding, wanted[k][0] if coding.encoding else 0, before, num - k)
            if before in known or before in ids[-1:]:
                raise ValueError(WRONG)
            ids.append(before)
        return [(i, self._new_level(coding, wanted[k][1] if coding.encoding else 0)) for k, i in enumerate(ids)]

    def _known_level(self, coding: Coding, c: Candidate, level: int) -> int:
        if self._sampled(coding, 2 + (c.level == SAMPLE), level):
            return SAMPLE
        if c.level == SAMPLE:
            return self._below(coding, level)
        guess = min(max(c.level + (self._shift * SHARE[self._shifted] >> 10), 0), self._last)
        kind = c.source, min(guess >> 4, 7), min(self._last - guess, 7), min((self._shifted + 2) // 3, 2)
        found = self._near(coding, kind, 5, level, guess - 15)
        self._shift, self._shifted = self._shift + found - c.level, self._shifted + 1
        return found

    def _new_level(self, coding: Coding, level: int) -> int:
        return SAMPLE if self._sampled(coding, 4, level) else self._below(coding, level)

    def _below(self, coding: Coding, level: int) -> int:
        return max(self._last - self._near(coding, ("below", self._tail >> 4), 4, self._last - level, 0), 0)

    def _sampled(self, coding: Coding, kind: int, level: int) -> bool:
        return self._some and bool(coding.bit(self._cells["sampled", kind], int(level == SAMPLE), FAST))

    def _near(self, coding: Coding, name: object, bits: int, level: int, start: int) -> int:
        most = (1 << bits) - 1
        found = self._tree(coding, ("near", name), bits, level - start if 0 <= level - start <= most else most)
        return (
            min(max(start + found, 0), LAST) if found < most else self._tree(coding, ("far", self._tail >> 4), 8, level)
        )

    def _next(self, coding: Coding, i: int, before: int, left: int) -> int:
        node = 1
        for depth in range(self._width):
            bit = least = before >> (self._width - 1 - depth) & 1
            if not least:
                cell = self._cells["above", min(left, 31), node if depth < 5 else 32 + depth]
                bit = coding.bit(cell, i >> (self._width - 1 - depth) & 1, FAST)
            learn(self._cells["id", node], bit, SLOW)
            node = node << 1 | bit
            if bit != least:
                return self._down(coding, node, depth + 1, i)
        return before

    def _down(self, coding: Coding, node: int, depth: int, i: int) -> int:
        for at in range(self._width - 1 - depth, -1, -1):
            node = node << 1 | coding.bit(self._cells["id", node], i >> at & 1, SLOW)
        found = node - (1 << self._width)
        if found >= self._vocab:
            raise ValueError(WRONG)
        return found

    def _tree(self, coding: Coding, name: object, bits: int, value: int) -> int:
        node = 1
        for i in range(bits - 1, -1, -1):
            node = node << 1 | coding.bit(self._cells[name, node], value >> i & 1, FAST)
        return node - (1 << bits)


def learn(cell: Cell, bit: int, most: int) -> None:
    """Move a cell's probability towards what was seen."""
    p, n = cell
    cell[:] = p + (((65504 if bit else 32) - p) * RATE[n] >> 15), min(n + 1, most)


def _gather(known: dict[int, Candidate], source: List, which: int, weight: int) -> None:
    for slot in source.slots:
        c = known.setdefault(slot.id, Candidate(slot.id))
        if which == 1 and c.slots and max(c.level, slot.level) < SAMPLE:
            c.level, c.source = (c.level + slot.level + 1) // 2, 3
        elif which < 2 or not c.slots:
            c.level, c.source = slot.level, which
        c.context += KIND[slot.past] * weight
        c.slots[which] = slot


def _renew(this: List, found: list[Pair], held: dict[int, Slot]) -> None:
    for slot in this.slots:
        slot.past = slot.past << 1 & 255
    for i, level in found:
        if i in held:
            held[i].level, held[i].past = level, held[i].past | 1
    order = [*range(this.hand, len(this.slots)), *range(min(this.hand, len(this.slots)))]
    free = [*range(len(this.slots), LIST), *(k for k in order if not this.slots[k].past & 3)]
    new = [Slot(i, level) for i, level in found if i not in held]
    for at, slot in zip(free, new, strict=False):
        this.slots[at : at + 1] = [slot]
        this.hand = (at + 1) % LIST
