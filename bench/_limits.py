"""What this machine can do at most: matrix products in GFLOP/s, reads of memory in GB/s.

A bench calls these in its own process, beside what it times, since shared machines change by the minute.
Not covered: caches (the arrays are far larger than those) and accelerators.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from spiritsafe.native import has_bfloat16

READ_BYTES = 1 << 29
SHAPES = ((2048, 2048, 2048), (4096, 1024, 2048), (1024, 576, 49152))


def gemm_peak_gflops(dtype: torch.dtype, threads: int | None = None, *, runs: int = 4) -> float:
    """The best rate over a few shapes (rows, inner, columns) of `linear`.

    `threads` is torch's own number unless given.
    """
    with _threads(threads), torch.inference_mode():
        return max(_gemm_gflops(dtype, *shape, runs=runs) for shape in SHAPES)


def best_peak_gflops(threads: int | None = None) -> float:
    """The rate of bfloat16 products, or of float32 ones where the processor has no faster."""
    dtypes = (torch.bfloat16, torch.float32) if has_bfloat16() else (torch.float32,)
    return max(gemm_peak_gflops(dtype, threads) for dtype in dtypes)


def bandwidth_gb_s(threads: int | None = None, *, runs: int = 4) -> float:
    """The best rate of reading memory once, over a sum and a matrix-vector product of 512 MiB."""
    values = torch.ones(READ_BYTES // 4).view(4096, -1)
    vector = torch.ones(values.shape[1])
    with _threads(threads), torch.inference_mode():
        best_s = min(_best_s(values.sum, runs), _best_s(lambda: values @ vector, runs))
    return READ_BYTES / best_s / 1e9


def _gemm_gflops(dtype: torch.dtype, rows: int, inner: int, columns: int, runs: int) -> float:
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    best_s = _best_s(lambda: torch.nn.functional.linear(left, right), runs)
    return 2 * rows * inner * columns / best_s / 1e9


def _best_s(work: Callable[[], object], runs: int) -> float:
    work()
    spent = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return min(spent)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
