"""Head and distillation loss, forward and backward, beside TRL's and Liger's: tokens/s, memory, exactness.

V = 49,152, D = 576 (SmolLM2-135M). `peak_extra_mib` is what a process of its own needs beyond the inputs, the
gradients included; `grad_rel_err` of both gradients against float64 over 64 tokens. `limit` of tokens/s: the
products alone (4 x 2 V D operations a token for a dense teacher, 3 for a sparse one) at the best product rate
measured in this run. TRL is not run at 16,384 tokens, where a call takes minutes.
"""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

import torch

from bench._kd_losses import DTYPES, PEERS, D, Result, V, exact, make_case
from bench._limits import gemm_peak_gflops
from bench._schema import Row, main, note

OURS = "ours"
DENSE = ("trl 1.16.0", "trl 1.16.0 small tiles", "trl 1.16.0 gkd", "liger 0.8.5 eager", "liger 0.8.5 compiled")
KINDS: dict[str, tuple[str, ...]] = {
    "fkl": DENSE,
    "rkl": ("trl 1.16.0", "liger 0.8.5 compiled"),
    "jsd": ("trl 1.16.0", "trl 1.16.0 gkd", "liger 0.8.5 compiled"),
    "sparse fkl": ("trl 1.16.0", "full-logit sparse"),
}


def measure(seed: int) -> list[Row]:
    """All cases; every peer next to us, in turn."""
    rows: list[Row] = []
    for dtype in DTYPES:
        peak = gemm_peak_gflops(DTYPES[dtype])
        note(f"{dtype}: {peak:.0f} GFLOP/s")
        rows.append(Row(f"products {dtype}", "gflop_per_s", peak))
        for kind, peers in KINDS.items():
            rows += errors(kind, dtype, peers, seed)
            units = 3 if kind.startswith("sparse") else 4
            limit = peak * 1e9 / (units * 2 * V * D)
            rows += speeds(1024, kind, dtype, peers, limit, seed, runs=5)
            rows += speeds(4096, kind, dtype, ("trl 1.16.0",) if kind == "fkl" else (), limit, seed, runs=3)
            rows += speeds(16384, kind, dtype, (), limit, seed, runs=1)
            rows += memory(kind, dtype)
    return rows


def speeds(num: int, kind: str, dtype: str, peers: Sequence[str], limit: float, seed: int, *, runs: int) -> list[Row]:
    """Tokens/s of us and of every peer, shuffled; our figure beside each peer is the same."""
    names = [OURS, *peers]
    case = make_case(num, kind, dtype, seed)
    spent: dict[str, list[float]] = {name: [] for name in names}
    warm = make_case(256, kind, dtype, seed)
    for name in names:
        PEERS[name](warm)
    mixed = random.Random(seed)
    for _ in range(runs):
        for name in mixed.sample(names, len(names)):
            started = time.perf_counter()
            PEERS[name](case)
            spent[name].append(num / (time.perf_counter() - started))
    found = {name: median(values) for name, values in spent.items()}
    note(f"N={num} {kind} {dtype}: " + ", ".join(f"{n} {f:.0f}" for n, f in found.items()))
    own, spread = found[OURS], (min(spent[OURS]), max(spent[OURS]))
    label = f"N={num} {kind} {dtype}"
    if not peers:
        return [Row(label, "tokens_per_s", own, limit=limit, n=runs, spread=spread)]
    return [
        Row(label, "tokens_per_s", own, peer, found[peer], own / found[peer], limit, runs, spread) for peer in peers
    ]


def errors(kind: str, dtype: str, peers: Sequence[str], seed: int) -> list[Row]:
    """The larger relative error of the two gradients; below float32's and bf16's rounding nothing is ranked."""
    case = make_case(64, kind, dtype, seed)
    wanted = exact(case)
    label = f"N=64 {kind} {dtype}"
    found = {name: _error(PEERS[name](case), wanted) for name in (OURS, *peers) if _same_loss(name, kind)}
    own = found.pop(OURS)
    rows = [Row(label, "grad_rel_err", own, peer, error, error / own) for peer, error in found.items()]
    return rows or [Row(label, "grad_rel_err", own)]


def memory(kind: str, dtype: str) -> list[Row]:
    """Peak memory beyond the inputs, each in a process of its own."""
    rows = []
    for num in (1024, 4096, 16384):
        own = _peak_mib(OURS, num, kind, dtype)
        peer = "trl 1.16.0" if num < 16384 else None
        theirs = _peak_mib(peer, num, kind, dtype) if peer else None
        ratio = theirs / own if theirs else None
        rows.append(Row(f"N={num} {kind} {dtype}", "peak_extra_mib", own, peer, theirs, ratio, limit=V * D * 4 / 2**20))
    return rows


def _same_loss(peer: str, kind: str) -> bool:
    return not kind.startswith("sparse") or peer in (OURS, "full-logit sparse")


def _error(found: Result, wanted: Result) -> float:
    pairs = zip(found[1:], wanted[1:], strict=True)
    return max(float((f.double() - w).norm() / w.norm()) for f, w in pairs if isinstance(f, torch.Tensor))


def _peak_mib(peer: str, num: int, kind: str, dtype: str) -> float:
    command = [sys.executable, "-m", "bench._kd_losses", peer, str(num), kind, dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main("kd_loss", measure)
