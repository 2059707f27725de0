"""Rows of signals to bytes and back, entropy-coded by a model that adapts to what it has coded.

A row's tokens are a set. Those that followed the same token before, were with the same likeliest token, or were in
the rows just before, cost a yes or a no each; the rest is written in order of id by an adaptive tree over the
vocabulary. Only integers enter the model, so bytes decode alike everywhere. C++ where it compiles, else the same
model here, about 300 times slower. Suffixes: T rows, K entries.
"""

import ctypes
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spiritsafe.make.signals.plain import PlainModel
from spiritsafe.native import native

SAMPLE = 255
MOST = 254


@dataclass(frozen=True)
class Rows:
    """What is stored of each answer token: `counts_T` entries (ids, levels; 255 marks a sample), the tail, the token.

    Entries beyond a row's count are -1 and 0. Ids of a row differ from each other; their order means nothing.
    """

    counts_T: NDArray[np.int32]
    ids_TK: NDArray[np.int32]
    levels_TK: NDArray[np.uint8]
    tails_T: NDArray[np.uint8]
    tokens_T: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in self.parts())

    def parts(self) -> tuple[NDArray[Any], ...]:
        """The arrays, in the order of the fields."""
        return self.counts_T, self.ids_TK, self.levels_TK, self.tails_T, self.tokens_T


class Coder(Protocol):
    """The adaptive model: exchanges are encoded or decoded in the same order, each continues the one before."""

    def encode(self, rows: Rows) -> bytes:
        """The rows of one exchange. Raises `ValueError` where a row's ids are repeated or outside of the vocabulary."""
        ...

    def decode(self, data: bytes, num: int, width: int) -> Rows:
        """`num` rows of up to `width` entries. Raises `ValueError` where the bytes cannot be such rows."""
        ...


def open_coder(vocab: int) -> Coder:
    """A coder that has seen nothing yet."""
    library = native(Path(__file__).with_name("coder.cpp"))
    return NativeCoder(library, vocab) if library else PlainCoder(vocab)


class NativeCoder:
    """The model in C++."""

    def __init__(self, library: ctypes.CDLL, vocab: int) -> None:
        library.signal_open.restype = ctypes.c_void_p
        library.signal_encode.restype = ctypes.c_int64
        library.signal_close.argtypes = [ctypes.c_void_p]
        self._library, self._model = library, ctypes.c_void_p(library.signal_open(vocab))
        weakref.finalize(self, library.signal_close, self._model)

    def encode(self, rows: Rows) -> bytes:
        """See `Coder`."""
        parts = [np.array(part, order="C") for part in rows.parts()]
        num, width = rows.ids_TK.shape
        room = 64 + 16 * num * (width + 4)
        out = ctypes.create_string_buffer(room)
        size = self._library.signal_encode(
            self._model, ctypes.c_int64(num), width, *map(_pointer, parts), out, ctypes.c_int64(room)
        )
        if size == -2:
            raise ValueError("ids are repeated or outside of the vocabulary")
        assert size >= 0
        return out.raw[:size]

    def decode(self, data: bytes, num: int, width: int) -> Rows:
        """See `Coder`."""
        rows = _empty(num, width)
        if self._library.signal_decode(
            self._model, ctypes.c_int64(num), width, *map(_pointer, rows.parts()), data, ctypes.c_int64(len(data))
        ):
            raise ValueError("the bytes are not such rows")
        return rows


class PlainCoder:
    """The same model in Python."""

    def __init__(self, vocab: int) -> None:
        self._model = PlainModel(vocab)

    def encode(self, rows: Rows) -> bytes:
        """See `Coder`."""
        return self._model.encode(
            [
                (list(zip(ids[:n].tolist(), levels[:n].tolist(), strict=True)), int(tail), int(token))
                for n, ids, levels, tail, token in zip(*rows.parts(), strict=True)
            ]
        )

    def decode(self, data: bytes, num: int, width: int) -> Rows:
        """See `Coder`."""
        rows = _empty(num, width)
        for t, (entries, tail, token) in enumerate(self._model.decode(data, num)):
            n = len(entries)
            if n > width:
                raise ValueError("the bytes are not such rows")
            rows.counts_T[t], rows.tails_T[t], rows.tokens_T[t] = n, tail, token
            rows.ids_TK[t, :n], rows.levels_TK[t, :n] = [e[0] for e in entries], [e[1] for e in entries]
        return rows


def _empty(num: int, width: int) -> Rows:
    return Rows(
        np.zeros(num, np.int32),
        np.full((num, width), -1, np.int32),
        np.zeros((num, width), np.uint8),
        np.zeros(num, np.uint8),
        np.zeros(num, np.int32),
    )


def _pointer(part: NDArray[Any]) -> Any:
    return part.ctypes.data_as(ctypes.c_void_p)
