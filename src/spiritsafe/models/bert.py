"""A BERT encoder over 8-bit weights: C++ on one thread, else numpy, which is slower and gives the same bits.

A text's states depend neither on what is encoded beside it nor on the processor: activations are rounded to 8 bits for
each token and multiplied in whole numbers, and floats are added in one order, each operation rounded by itself.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import fsum, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.native import native

Floats = NDArray[np.float32]
WIDTHS, HEAD = 64, 32  # what the C++ is written for: what widths are a multiple of, numbers of a head
LANES = 16  # sums are taken over so many numbers side by side, which are then folded by halves
SOURCE = Path(__file__).with_name("bert.cpp")
ROUND = np.float32(
    12582912
)  # 1.5 * 2**23: added to a number below 2**22, it leaves the nearest whole one in the last bits
UNSEEN = np.float32(-1e30)


@dataclass(frozen=True)
class Product:
    """A linear layer: `weights` (in, out) in 8 bits, times `scales` (out), plus `bias` (out)."""

    weights: NDArray[np.int8]
    scales: Floats
    bias: Floats

    def of(self, rows: Floats) -> Floats:
        """Rows (N, in) through the layer, (N, out), each row rounded to 256 steps first."""
        lows = rows.min(1) + np.float32(0)  # never -0
        units = np.maximum(rows.max(1) - lows, np.float32(1e-12)) / np.float32(255)
        steps = ((rows - lows[:, None]) * (np.float32(1) / units)[:, None] + ROUND).view(np.int32) & 0xFFFF
        whole = (steps.astype(float) @ self._whole).astype(np.float32)  # below 2**53, so exact in any order
        found: Floats = (whole * units[:, None] + self.sums * lows[:, None]) * self.scales + self.bias
        return found

    @staticmethod
    def beside(products: Sequence["Product"]) -> "Product":
        """Layers over the same rows as one."""
        weights, scales, bias = zip(*((p.weights, p.scales, p.bias) for p in products), strict=True)
        return Product(np.hstack(weights), np.concatenate(scales), np.concatenate(bias))

    @cached_property
    def sums(self) -> Floats:
        """The sum of each output's weights (out)."""
        found: Floats = self.weights.sum(0, dtype=np.int32).astype(np.float32)
        return found

    @cached_property
    def _whole(self) -> NDArray[np.float64]:
        return self.weights.astype(float)


@dataclass(frozen=True)
class Norm:
    """Layer normalisation: `weight` and `bias` (width)."""

    weight: Floats
    bias: Floats

    def of(self, rows: Floats, eps: float) -> Floats:
        """Rows (N, width), each with mean 0 and variance 1 before weight and bias."""
        width = np.float32(rows.shape[1])
        off = rows - (_total(rows) / width)[:, None]
        factor = np.float32(1) / np.sqrt(_total(off * off) / width + np.float32(eps))
        found: Floats = off * factor[:, None] * self.weight + self.bias
        return found


@dataclass(frozen=True)
class Layer:
    """One layer: queries, keys and values side by side, what attention gives out, and the two of the MLP."""

    qkv: Product
    out: Product
    up: Product
    down: Product
    after_attention: Norm
    after_mlp: Norm


@dataclass(frozen=True)
class Bert:
    """Layers over embedded tokens; `embedded` gives the sum of a text's embeddings (T, width) by its token ids."""

    embedded: Callable[[Sequence[int]], Floats]
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    eps: float
    _kept: list[Any] = field(default_factory=list, compare=False)

    def states(self, ids: Sequence[int]) -> Floats:
        """The last layer's states of a text's tokens, (T, width)."""
        rows = np.ascontiguousarray(self.embedded(ids), np.float32)
        library = _library()
        if library is None or rows.shape[1] != HEAD * self.heads or rows.shape[1] % WIDTHS:
            return self._plain(rows)
        norm, layers = self._packed
        library.bert_states(rows.ctypes.data, *rows.shape, norm, layers, len(self.layers), self.eps)
        return rows

    def mean(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """The unit vector (width) of the states' mean."""
        found = self.states(ids).mean(0, dtype=float)
        unit: NDArray[np.float64] = found / sqrt(fsum(found * found))
        return unit

    def _plain(self, rows: Floats) -> Floats:
        rows = self.norm.of(rows, self.eps)
        for layer in self.layers:
            attended = layer.out.of(self._attended(layer.qkv.of(rows)))
            rows = layer.after_attention.of(rows + attended, self.eps)
            wide = _gelu(layer.up.of(rows))
            rows = layer.after_mlp.of(rows + layer.down.of(wide), self.eps)
        return rows

    def _attended(self, qkv_TW: Floats) -> Floats:
        length, width = len(qkv_TW), qkv_TW.shape[1] // 3
        queries_HTE, keys_HTE, values_HTE = qkv_TW.reshape(length, 3, self.heads, -1).transpose(1, 2, 0, 3)
        scores = np.zeros((self.heads, length, length), np.float32)
        for e in range(width // self.heads):
            scores += queries_HTE[:, :, e, None] * keys_HTE[:, None, :, e]
        scores = scores * (np.float32(1) / np.sqrt(np.float32(width // self.heads)))
        padded = np.pad(scores, ((0, 0), (0, 0), (0, -length % LANES)), constant_values=UNSEEN)
        odds = _exponential(padded - padded.max(2, keepdims=True))
        found = np.zeros((self.heads, length, width // self.heads), np.float32)
        for s in range(length):
            found += odds[:, :, s, None] * values_HTE[:, None, s, :]
        found *= (np.float32(1) / _total(odds))[:, :, None]
        return found.transpose(1, 0, 2).reshape(length, width)

    @cached_property
    def _packed(self) -> tuple[Any, Any]:
        """What the C++ reads; the arrays behind it are kept."""
        return _Norm(*self._held(self.norm)), (_Layer * len(self.layers))(*map(self._layer, self.layers))

    def _layer(self, layer: Layer) -> "_Layer":
        products = [self._product(p) for p in (layer.qkv, layer.out, layer.up, layer.down)]
        return _Layer(*products, *(_Norm(*self._held(n)) for n in (layer.after_attention, layer.after_mlp)))

    def _product(self, product: Product) -> "_Product":
        ins, outs = product.weights.shape
        library = _library()
        assert library
        panels = product.weights.reshape(ins // 4, 4, -1, library.bert_panel()).transpose(2, 0, 3, 1)
        return _Product(*self._pointers(panels, product.sums, product.scales, product.bias), ins, outs)

    def _held(self, norm: Norm) -> list[int]:
        return self._pointers(norm.weight, norm.bias)

    def _pointers(self, *arrays: NDArray[Any]) -> list[int]:
        held = [np.ascontiguousarray(array) for array in arrays]
        self._kept.extend(held)
        return [array.ctypes.data for array in held]


def _total(rows: Floats) -> Floats:
    """Sums over the last axis, a multiple of LANES long."""
    lanes = np.zeros((*rows.shape[:-1], LANES), np.float32)
    for at in range(0, rows.shape[-1], LANES):
        lanes += rows[..., at : at + LANES]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def _exponential(x: Floats) -> Floats:
    """e^x as `vectors.h` computes it."""
    f = np.float32
    x = np.clip(x, f(-87), f(87))
    shifted = x * f(1.44269504) + ROUND
    n = shifted - ROUND
    r = (x - n * f(0.693145752)) - n * f(1.42860677e-6)
    p = r * f(1.98756915e-4) + f(1.39819995e-3)
    for term in (8.33345198e-3, 4.16657962e-2, 1.66666657e-1, 0.5):
        p = p * r + f(term)
    p = p * r * r + r + f(1)
    found: Floats = (p.view(np.int32) + (shifted.view(np.int32) << 23)).view(np.float32)
    return found


def _gelu(x: Floats) -> Floats:
    """x times the normal distribution's share below x, as `bert.cpp` computes it."""
    f = np.float32
    z = np.abs(x) * f(0.707106781)
    t = f(1) / (f(1) + f(0.3275911) * z)
    series = np.full_like(x, 1.061405429)
    for term in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + f(term)
    tail = series * t * _exponential(-z * z) * f(0.5)
    found: Floats = x * np.where(x < 0, tail, f(1) - tail)
    return found


class _Product(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "sums", "scales", "bias")),
        ("ins", ctypes.c_int64), ("outs", ctypes.c_int64),
    )  # fmt: skip


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Product) for name in ("qkv", "out", "up", "down")),
        *((name, _Norm) for name in ("after_attention", "after_mlp")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    library = native(SOURCE, exact=True)
    return library and typed(library)


def typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """A compiled `bert.cpp` that can be called."""
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    library.bert_states.argtypes = [
        pointer, number, number, ctypes.POINTER(_Norm), ctypes.POINTER(_Layer), number, ctypes.c_float
    ]  # fmt: skip
    library.bert_states.restype = None
    return library
