"""The header of a GGUF file, read with every count and length checked against the file before anything is taken.

Little-endian files of versions 2 and 3, in one piece. A field is a number, a truth value, a text, or a list of those.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import ModelError

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
VERSIONS = (2, 3)
ALIGNMENT = 32
MOST_DIMS = 4
# The smallest field and tensor: an empty name with a byte, and an empty name without dimensions.
FIELD_BYTES, TENSOR_BYTES = 13, 24
AGAIN = "fetch it again"


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: its shape (rows last dimension first, as numpy has it), GGML's type, and its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    num_bytes: int


@dataclass(frozen=True)
class Header:
    """All fields by name, and the tensors in the file's order."""

    fields: dict[str, Any]
    tensors: tuple[Stored, ...]


def read_header(source: Path) -> Header:
    """The header of a GGUF file. Raises `ModelError` naming what is wrong with it."""
    if not source.is_file():
        raise ModelError(str(source), "no such file")
    if source.stat().st_size < 24:
        raise ModelError(str(source), "is not a GGUF file" if not _is_gguf(source) else "is truncated", AGAIN)
    data = np.memmap(source, np.uint8, mode="r")
    reader = _Reader(source, data.data)
    if bytes(reader.take(4)) != b"GGUF":
        raise ModelError(str(source), "is not a GGUF file")
    version = reader.number("I")
    if version not in VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise ModelError(str(source), "is a big-endian GGUF file", "convert it for little-endian machines")
        raise ModelError(str(source), f"is a GGUF file of version {version}", "only versions 2 and 3 are read")
    num_tensors = reader.count("Q", TENSOR_BYTES, "tensors")
    fields = dict(reader.fields(reader.count("Q", FIELD_BYTES, "fields")))
    if fields.get("split.count", 0) not in (0, 1):
        what = f"is part {fields.get('split.no', 0) + 1} of {fields['split.count']}"
        raise ModelError(str(source), what, "join the parts (llama-gguf-split --merge)")
    return Header(fields, tuple(reader.tensors(num_tensors, fields.get("general.alignment", ALIGNMENT))))


def stored_bytes(source: Path, tensor: Stored) -> NDArray[np.uint8]:
    """A tensor's bytes, straight from the file."""
    return np.memmap(source, np.uint8, mode="r", offset=tensor.start, shape=(tensor.num_bytes,))


def _is_gguf(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(4) == b"GGUF"


class _Reader:
    def __init__(self, source: Path, data: memoryview) -> None:
        self.source, self.data, self.at = source, data, 0

    def broken(self, what: str) -> ModelError:
        return ModelError(str(self.source), f"is truncated or broken ({what})", AGAIN)

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise self.broken(f"{size} bytes at {self.at}, of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def count(self, form: str, size: int, what: str) -> int:
        """A number of things of at least so many bytes each, which the rest of the file can hold."""
        number = int(self.number(form))
        if number * size > len(self.data) - self.at:
            raise self.broken(f"{number} {what} in {len(self.data)} bytes")
        return number

    def text(self) -> str:
        raw = bytes(self.take(self.count("Q", 1, "letters")))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.broken(f"text that is no UTF-8, {raw[:20]!r}") from None

    def fields(self, number: int) -> Iterator[tuple[str, Any]]:
        names: set[str] = set()
        for _ in range(number):
            name = self.text()
            if name in names:
                raise self.broken(f"field {name!r} twice")
            names.add(name)
            yield name, self.value(self.number("I"))

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != LIST:
            raise self.broken(f"a field of type {kind}")
        inner = self.number("I")
        if inner == TEXT:
            return [self.text() for _ in range(self.count("Q", 8, "texts"))]
        if inner not in NUMBERS:
            raise self.broken(f"a list of type {inner}")
        form = NUMBERS[inner]
        number = self.count("Q", struct.calcsize(f"<{form}"), "numbers")
        return list(struct.unpack(f"<{number}{form}", self.take(number * struct.calcsize(f"<{form}"))))

    def tensors(self, number: int, alignment: Any) -> Iterator[Stored]:
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.broken(f"alignment {alignment}")
        told = [self._tensor() for _ in range(number)]
        start = -(-self.at // alignment) * alignment
        end, names = 0, set()
        for name, dims, kind, offset in sorted(told, key=lambda t: t[3]):
            num_bytes = self._num_bytes(name, dims, kind)
            if offset < end or offset % alignment:
                raise self.broken(f"tensor {name!r} lies in another")
            if start + offset + num_bytes > len(self.data):
                raise ModelError(str(self.source), f"is truncated in tensor {name}", AGAIN)
            if name in names:
                raise self.broken(f"tensor {name!r} twice")
            names.add(name)
            end = offset + num_bytes
            yield Stored(name, tuple(reversed(dims)), kind, start + offset, num_bytes)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, num_dims = self.text(), self.number("I")
        if not 1 <= num_dims <= MOST_DIMS:
            raise self.broken(f"tensor {name!r} of {num_dims} dimensions")
        dims = struct.unpack(f"<{num_dims}Q", self.take(8 * num_dims))
        return name, dims, self.number("I"), self.number("Q")

    def _num_bytes(self, name: str, dims: tuple[int, ...], kind: int) -> int:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if kind not in set(GGMLQuantizationType):
            raise self.broken(f"tensor {name!r} of storage {kind}")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if 0 in dims or dims[0] % block:
            raise self.broken(f"tensor {name!r} of shape {list(dims)}")
        return prod(dims) // int(block) * int(size)
