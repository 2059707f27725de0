"""The model of coder.cpp in plain Python: the same bytes, slowly. Its comments are there; change both together."""

from collections import defaultdict
from collections.abc import Sequence

LIST, SAMPLE = 96, 255
RATE = [131072 // (2 * n + 3) for n in range(32)]
Entry = tuple[int, int, int]  # id, level, what was seen in the last rows
Pair = tuple[int, int]
Row = tuple[list[Pair], int, int]
Bits = defaultdict[object, list[int]]


class Coding:
    """Bits in or out of a binary range coder; `encoding` says which."""

    def __init__(self, data: bytes | None = None) -> None:
        self.encoding, self._range, self._low, self._cache, self._pending = data is None, 0xFFFFFFFF, 0, 0, 1
        self.out, self._data, self._at = bytearray(), data or b"", 5
        self._code = int.from_bytes(self._data[:5].ljust(5, b"\0"), "big") & 0xFFFFFFFF

    @property
    def bad(self) -> bool:
        """Whether more bytes were read than there are."""
        return self._at > len(self._data) and not self.encoding

    def bit(self, cell: list[int], bit: int, most: int) -> int:
        """Write `bit`, or read and return it; `cell` is the probability of 0 in 1/32768 and a count."""
        bound = (self._range >> 15) * cell[0]
        if not self.encoding:
            bit = int(self._code >= bound)
        if bit:
            self._low, self._code, self._range = self._low + bound, self._code - bound, self._range - bound
        else:
            self._range = bound
        _learn(cell, bit, most)
        while self._range < 1 << 24:
            self._range <<= 8
            self._move()
        return bit

    def finish(self) -> bytes:
        """All bytes written."""
        for _ in range(5):
            self._move()
        return bytes(self.out)

    def _move(self) -> None:
        if not self.encoding:
            byte = self._data[self._at] if self._at < len(self._data) else 0
            self._code, self._at = (self._code << 8 | byte) & 0xFFFFFFFF, self._at + 1
            return
        if self._low & 0xFFFFFFFF < 0xFF000000 or self._low >> 32:
            carry = self._low >> 32
            self.out.append((self._cache + carry) & 255)
            self.out.extend([(255 + carry) & 255] * (self._pending - 1))
            self._pending, self._cache = 0, self._low >> 24 & 255
        self._pending += 1
        self._low = (self._low & 0xFFFFFF) << 8


class PlainModel:
    """What was coded so far; see coder.cpp."""

    def __init__(self, vocab: int) -> None:
        self._vocab, self._width, self._context, self._tail = vocab, max(1, (vocab - 1).bit_length()), vocab, 0
        self._cells: Bits = defaultdict(lambda: [16384, 0])
        self._lists: dict[int, list[Entry]] = {}

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Bytes of an exchange's rows: (id, level) entries, the tail's level, the token."""
        coding = Coding()
        for entries, tail, token in rows:
            self._code(coding, dict(entries), tail, token)
        return coding.finish()

    def decode(self, data: bytes, num: int) -> list[Row]:
        """The rows again. Raises `ValueError` where the bytes end too early."""
        coding, rows = Coding(data), []
        for _ in range(num):
            rows.append(self._code(coding, {}, 0, 0))
            if coding.bad:
                raise ValueError("the bytes end too early")
        return rows

    def _code(self, coding: Coding, entries: dict[int, int], tail: int, token: int) -> Row:
        n = self._tree(coding, "n", 8, len(entries), 30)
        tail = self._tree(coding, ("tail", self._tail >> 4), 8, tail, 20)
        self._tail = tail
        seen: set[int] = set()
        found = self._hits(coding, entries, n, tail, seen)
        found += self._misses(coding, sorted((v, i) for i, v in entries.items() if i not in seen), n - len(found))
        places = [i for i, _ in found]
        place = self._tree(coding, "token", 8, places.index(token) if token in places else n, 30)
        token = places[place] if place < n else self._id(coding, token)
        fresh = sorted(found, key=lambda e: (e[1], e[0]))
        for which in (self._context, self._vocab + 1):
            self._lists[which] = _renewed(self._lists.get(which, []), fresh)
        self._context = token
        return found, tail, token

    def _hits(self, coding: Coding, entries: dict[int, int], n: int, tail: int, seen: set[int]) -> list[Pair]:
        hits: list[Pair] = []
        for which in (0, 1):
            for k, (i, level, past) in enumerate(self._lists.get(self._vocab + 1 if which else self._context, [])):
                if len(hits) >= n or i in seen:
                    continue
                seen.add(i)
                cell = self._cells["flag", which, min(k >> 2, 15), past, tail >> 4]
                if coding.bit(cell, int(i in entries), 30):
                    hits.append((i, self._tree(coding, ("level", tail >> 5, level >> 3), 8, entries.get(i, 0), 20)))
        return hits

    def _misses(self, coding: Coding, wanted: list[Pair], num: int) -> list[Pair]:
        misses, now, sampled = [], 0, False
        for k in range(num):
            level, i = wanted[k] if coding.encoding else (0, 0)
            sampled = sampled or bool(coding.bit(self._cells["sampled"], int(level == SAMPLE), 30))
            steps = 0
            while not sampled and now < 254:
                if not coding.bit(self._cells["step", now >> 2, min(steps, 7)], int(now < level), 30):
                    break
                now, steps = now + 1, steps + 1
            misses.append((self._id(coding, i), SAMPLE if sampled else now))
        return misses

    def _id(self, coding: Coding, i: int) -> int:
        found = self._tree(coding, "id", self._width, i, 30)
        return found if found < self._vocab else 0

    def _tree(self, coding: Coding, name: object, bits: int, value: int, most: int) -> int:
        node = 1
        for i in range(bits - 1, -1, -1):
            node = node << 1 | coding.bit(self._cells[name, node], value >> i & 1, most)
        return node - (1 << bits)


def _learn(cell: list[int], bit: int, most: int) -> None:
    p, n = cell
    p = p - (p * RATE[n] >> 16) if bit else p + ((32768 - p) * RATE[n] >> 16)
    cell[:] = min(max(p, 32), 32736), min(n + 1, most)


def _renewed(old: list[Entry], fresh: list[Pair]) -> list[Entry]:
    past = {i: seen for i, _, seen in old}
    new = [(i, level, (past.get(i, 0) << 1 | 1) & 15) for i, level in fresh]
    now = {i for i, _ in fresh}
    rest = [(i, level, seen << 1 & 15) for i, level, seen in old if i not in now]
    return new + rest[: max(0, LIST - len(new))]
