"""The model of coder.cpp in plain Python: the same bytes, slowly. Its comments are there; change both together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

LIST, SAMPLE, LAST, USES, WIDE = 96, 255, 254, 250, 226
RATE = [65536 // (n + 5) for n in range(256)]
KIND = [1 + 2 * min(3, (n.bit_count() + 1) // 2) + (n & 1) for n in range(256)]
WRONG = "the bytes are not such rows"
LOW, WORD = 1 << 32, (1 << 32) - 1
Pair = tuple[int, int]  # id, level
Row = tuple[list[Pair], int, int]
Cell = list[int]


def _classes(first: int, bits: Sequence[int]) -> list[Pair]:
    found = []
    for b in bits:
        found.append((first, b))
        first += 1 << b
    return found


DOWN = _classes(0, [0] * 18 + [1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6])
UP = _classes(1, [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 8])
AROUND = [*((1 - least - (1 << b), b) for least, b in reversed(UP)), (0, 0), *UP, (0, 0)]


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
    slots: dict[int, Slot] = field(default_factory=dict)


class Coding:
    """Steps in or out of two rANS coders by turns; `encoding` says which."""

    def __init__(self, data: bytes | None = None) -> None:
        self.encoding, self.at = data is None, 0
        self._data, self._steps = data or b"", list[Pair]()
        self._x, self._y = (self._word() << 32 | self._word() for _ in range(2))

    def bit(self, cell: Cell, bit: int) -> int:
        """Write `bit`, or read and return it; `cell` holds two probabilities of 1 in 1/65536."""
        p = (cell[0] + cell[1]) >> 1
        if not self.encoding:
            bit = int((self._x & 0xFFFF) < p)
        self._step(*((0, p) if bit else (p, 65536 - p)))
        goal = 65535 if bit else 31
        cell[:] = cell[0] + (goal - cell[0] >> 4), cell[1] + (goal - cell[1] >> 7)
        return bit

    def symbol(self, cdf: list[int], s: int) -> int:
        """Write symbol `s`, or read and return it; `cdf` holds what lies below each, and how often it was used."""
        size = len(cdf) - 1
        if not self.encoding:
            value = (self._x & 0xFFFF) >> 1
            s = sum(_below(cdf, i) <= value for i in range(1, size))
        self._step(2 * _below(cdf, s), 2 * (_below(cdf, s + 1) - _below(cdf, s)))
        learn(cdf, s)
        return s

    def raw(self, bits: int, value: int) -> int:
        """Write the last `bits` bits of a number, or read and return them."""
        if bits:
            value = value if self.encoding else (self._x & 0xFFFF) >> 16 - bits
            self._step(value << 16 - bits, 65536 >> bits)
        return value if bits else 0

    def finish(self) -> bytes:
        """All bytes written."""
        x, y, words = LOW, LOW, list[int]()
        for start, size in reversed(self._steps):
            x, y = y, x
            if x >> 48 >= size:
                words.append(x & WORD)
                x >>= 32
            x = (x // size << 16) + x % size + start
        words += [y & WORD, y >> 32, x & WORD, x >> 32]
        return b"".join(word.to_bytes(4, "big") for word in reversed(words))

    def ended(self) -> bool:
        """Whether all bytes were read, and nothing else."""
        return self.at == len(self._data) and self._x == self._y == LOW

    def _step(self, start: int, size: int) -> None:
        if self.encoding:
            self._steps.append((start, size))
            return
        z = (self._x >> 16) * size + (self._x & 0xFFFF) - start
        self._x, self._y = self._y, z << 32 | self._word() if z < LOW else z

    def _word(self) -> int:
        word = self._data[self.at : self.at + 4]
        self.at += 4
        return int.from_bytes(word, "big") if len(word) == 4 else 0


class PlainModel:
    """What was coded so far; see coder.cpp."""

    def __init__(self, vocab: int) -> None:
        self._vocab, self._blocks, self._context = vocab, max(1, ((vocab - 1).bit_length() + 3) // 4), vocab
        self._num = self._tail = self._last = self._known = self._mean = 0
        self._some = False
        self._before = self._sum = (0, 0)
        self._cells: defaultdict[object, Cell] = defaultdict(lambda: [32768, 32768])
        self._bytes: defaultdict[object, list[int]] = defaultdict(lambda: [*range(0, 32768, 2048), 0])
        self._numbers: defaultdict[object, list[int]] = defaultdict(lambda: [*range(0, 32768, 1024), 0])
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
            if coding.at > len(data):
                break
        if not coding.ended():
            raise ValueError(WRONG)
        return rows

    def _code(self, coding: Coding, wanted: dict[int, int], tail: int, token: int) -> Row:
        n = len(wanted)
        same = coding.bit(self._cells["same"], int(n == self._num))
        self._num = n = self._num if same else self._byte(coding, "count", n)
        self._tail = tail = self._byte(coding, ("tail", self._tail >> 4), tail)
        found = self._entries(coding, wanted, n) if n else []
        ids = [i for i, _ in found]
        kind = "place", found[0][1] >> 3 if found else 0
        place = self._byte(coding, kind, ids.index(token) if token in ids else n)
        self._context = token = ids[place] if place < n else self._one(coding, token)
        return found, tail, token

    def _entries(self, coding: Coding, wanted: dict[int, int], n: int) -> list[Pair]:
        self._known = self._mean = 0
        self._before = self._sum = (0, 0)
        self._some = bool(coding.bit(self._cells["some"], int(SAMPLE in wanted.values())))
        most = max((v for v in wanted.values() if v != SAMPLE), default=0)
        self._last = self._byte(coding, ("last", self._tail >> 3), most)
        known: dict[int, Candidate] = {}
        keys = [(0, self._context)]
        _gather(known, self._lists[keys[0]], 0, 81)
        top = self._likeliest(coding, known, min(wanted, key=lambda i: (wanted[i], i)) if wanted else 0)
        keys += [(1, top), (2, 0)]
        _gather(known, self._lists[keys[1]], 1, 9)
        _gather(known, self._lists[keys[2]], 2, 1)
        found = [(top, self._byte(coding, ("top", self._tail >> 3), wanted.get(top, 0)))]
        hits = self._hits(coding, known, wanted, top, n - 1)
        found += [(c.id, self._known_level(coding, c.level, wanted.get(c.id, 0))) for c in hits]
        others = sorted((i, v) for i, v in wanted.items() if i not in known)
        found += self._misses(coding, known, others, n - len(found))
        for which, key in enumerate(keys):
            _renew(self._lists[key], found, {i: c.slots[which] for i, c in known.items() if which in c.slots})
        return found

    def _likeliest(self, coding: Coding, known: dict[int, Candidate], wanted: int) -> int:
        places = list(known)
        place = self._byte(coding, ("likeliest", self._tail >> 4), places.index(wanted) if wanted in known else 127)
        top = places[place] if place < len(places) else self._one(coding, wanted)
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
            if c.id != top and coding.bit(self._cells["flag", c.context, kind], int(c.id in wanted)):
                hits.append(c)
        return hits

    def _misses(self, coding: Coding, known: dict[int, Candidate], wanted: list[Pair], num: int) -> list[Pair]:
        ids = self._rising(coding, [i for i, _ in wanted] if coding.encoding else [0] * num)
        if any(i >= self._vocab or i in known for i in ids) or len({*ids}) < num:
            raise ValueError(WRONG)
        return [(i, self._new_level(coding, 4, wanted[k][1] if coding.encoding else 0)) for k, i in enumerate(ids)]

    def _known_level(self, coding: Coding, old: int, level: int) -> int:
        if old == SAMPLE:
            return self._new_level(coding, 3, level)
        if self._sampled(coding, 2, level):
            return SAMPLE
        wide, (num, den) = max(WIDE - old, 4), self._before
        move = abs(wide * num) // den * (1 if num > 0 else -1) if den else 0
        guess = _bound(old + move, self._last)
        kind = guess >> 4 if guess < 192 else 12 + (guess - 192 >> 1)
        name = "old", kind, min(self._last - guess, 7), min((self._known + 2) // 3, 2)
        found = _bound(guess + self._number(coding, name, AROUND, level - guess), LAST)
        self._before = num, den = self._sum
        self._sum = num + wide * (found - old), den + wide * wide
        self._known += 1
        return found

    def _new_level(self, coding: Coding, kind: int, level: int) -> int:
        if self._sampled(coding, kind, level):
            return SAMPLE
        name = "new", self._last >> 4, min(self._mean >> 3, 7)
        down = self._number(coding, name, DOWN, max(self._last - level, 0))
        self._mean += 16 * down - self._mean >> 2
        return _bound(self._last - down, LAST)

    def _sampled(self, coding: Coding, kind: int, level: int) -> bool:
        return self._some and bool(coding.bit(self._cells["sampled", kind], int(level == SAMPLE)))

    def _number(self, coding: Coding, name: object, classes: list[Pair], value: int) -> int:
        s = next((s for s, (least, bits) in enumerate(classes) if least <= value < least + (1 << bits)), 0)
        least, bits = classes[coding.symbol(self._numbers[name], s)]
        return least + coding.raw(bits, value - least)

    def _rising(self, coding: Coding, wanted: list[int]) -> list[int]:
        ids = [0] * len(wanted)
        for depth in range(self._blocks):
            up, start, end = 4 * (self._blocks - 1 - depth), 0, 0
            for k, node in enumerate(ids):
                if k == end:
                    start, end = k, k + sum(i == node for i in ids[k:])
                ids[k] |= self._part(coding, node, depth, wanted[k] >> up & 15, ids[start:k], end - start) << up
        return ids

    def _part(self, coding: Coding, node: int, depth: int, s: int, before: list[int], num: int) -> int:
        """Four bits of an id in a node that holds `num`, those in `before` first."""
        own = self._bytes["node", depth, node]
        if num == 1:
            return coding.symbol(own, s)
        past = before[-1] >> 4 * (self._blocks - 1 - depth) & 15 if before else 16
        name = "group", depth, node if depth == 1 else 0, min(num - len(before), 8 if depth else 31), past
        s = coding.symbol(self._bytes[name], s)
        learn(own, s)
        if before and s < past:
            raise ValueError(WRONG)
        return s

    def _one(self, coding: Coding, i: int) -> int:
        found = 0
        for depth in range(self._blocks):
            up = 4 * (self._blocks - 1 - depth)
            found |= coding.symbol(self._bytes["node", depth, found], i >> up & 15) << up
        if found >= self._vocab:
            raise ValueError(WRONG)
        return found

    def _byte(self, coding: Coding, name: object, value: int) -> int:
        high = coding.symbol(self._bytes[name], value >> 4)
        return high << 4 | coding.symbol(self._bytes[name, high], value & 15)


def learn(cdf: list[int], s: int) -> None:
    """Move probabilities towards symbol `s`."""
    rate, size = RATE[cdf[-1]], len(cdf) - 1
    cdf[1:size] = [c + (((32767 if i > s else 0) - c) * rate >> 16) for i, c in enumerate(cdf[1:size], 1)]
    cdf[-1] = min(cdf[-1] + 1, USES)


def _below(cdf: list[int], s: int) -> int:
    return cdf[s] - (cdf[s] >> 10) + s if s < len(cdf) - 1 else 32768


def _bound(level: int, most: int) -> int:
    return min(max(level, 0), most)


def _gather(known: dict[int, Candidate], source: List, which: int, weight: int) -> None:
    for slot in source.slots:
        c = known.setdefault(slot.id, Candidate(slot.id))
        if which == 1 and c.slots and max(c.level, slot.level) < SAMPLE:
            c.level = (c.level + slot.level + 1) // 2
        elif which < 2 or not c.slots:
            c.level = slot.level
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
