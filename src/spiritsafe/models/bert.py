"""A BERT encoder over 8-bit weights: C++ on one thread (with VNNI or AVX2), else numpy.

A text's states do not depend on what is encoded beside it. The C++ path rounds activations to 8 bits for each token;
numpy multiplies in float32.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.native import native

Floats = NDArray[np.float32]
WIDTHS, HEAD = 64, 32  # what the C++ is written for: what widths are a multiple of, numbers of a head


@dataclass(frozen=True)
class Product:
    """A linear layer: `weights` (in, out) in 8 bits, times `scales` (out), plus `bias` (out)."""

    weights: NDArray[np.int8]
    scales: Floats
    bias: Floats

    def of(self, rows: Floats) -> Floats:
        """Rows (N, in) through the layer, (N, out)."""
        found: Floats = rows @ self._whole + self.bias
        return found

    @staticmethod
    def beside(products: Sequence["Product"]) -> "Product":
        """Layers over the same rows as one."""
        weights, scales, bias = zip(*((p.weights, p.scales, p.bias) for p in products), strict=True)
        return Product(np.hstack(weights), np.concatenate(scales), np.concatenate(bias))

    @cached_property
    def _whole(self) -> Floats:
        found: Floats = self.weights.astype(np.float32) * self.scales
        return found


@dataclass(frozen=True)
class Norm:
    """Layer normalisation: `weight` and `bias` (width)."""

    weight: Floats
    bias: Floats

    def of(self, rows: Floats, eps: float) -> Floats:
        """Rows (N, width), each with mean 0 and variance 1 before weight and bias."""
        off = rows - rows.mean(1, keepdims=True)
        found: Floats = off / np.sqrt((off * off).mean(1, keepdims=True) + eps) * self.weight + self.bias
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
        unit: NDArray[np.float64] = found / np.linalg.norm(found)
        return unit

    def _plain(self, rows: Floats) -> Floats:
        from scipy.special import erf

        rows = self.norm.of(rows, self.eps)
        for layer in self.layers:
            attended = layer.out.of(self._attended(layer.qkv.of(rows)))
            rows = layer.after_attention.of(rows + attended, self.eps)
            wide = layer.up.of(rows)
            wide = wide * (0.5 + 0.5 * erf(wide * np.float32(0.5**0.5)))
            rows = layer.after_mlp.of(rows + layer.down.of(wide), self.eps)
        return rows

    def _attended(self, qkv_TW: Floats) -> Floats:
        length, width = len(qkv_TW), qkv_TW.shape[1] // 3
        queries, keys, values = qkv_TW.reshape(length, 3, self.heads, -1).transpose(1, 2, 0, 3)
        scores = queries @ keys.transpose(0, 2, 1) / np.float32((width / self.heads) ** 0.5)
        odds = np.exp(scores - scores.max(2, keepdims=True))
        found: Floats = ((odds @ values) / odds.sum(2, keepdims=True)).transpose(1, 0, 2).reshape(length, width)
        return found

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
        sums = product.weights.sum(0, dtype=np.int32).astype(np.float32)
        return _Product(*self._pointers(panels, sums, product.scales, product.bias), ins, outs)

    def _held(self, norm: Norm) -> list[int]:
        return self._pointers(norm.weight, norm.bias)

    def _pointers(self, *arrays: NDArray[Any]) -> list[int]:
        held = [np.ascontiguousarray(array) for array in arrays]
        self._kept.extend(held)
        return [array.ctypes.data for array in held]


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
    library = native(Path(__file__).with_name("bert.cpp"))
    if library is None or not library.bert_panel():
        return None
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    library.bert_states.argtypes = [
        pointer, number, number, ctypes.POINTER(_Norm), ctypes.POINTER(_Layer), number, ctypes.c_float
    ]  # fmt: skip
    library.bert_states.restype = None
    return library
