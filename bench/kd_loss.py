"""Head and distillation loss, forward and backward, beside TRL's and Liger's: tokens/s, memory, exactness.

V = 49,152, D = 576 (SmolLM2-135M). Inputs are the hidden states of real text through SmolLM2 and a pruned copy;
cases that end in `random` have random ones of about the same spread (all there is where the text is not at hand).
`peak_extra_mib` is what a process of its own needs beyond the inputs, the gradients included; `grad_rel_err` the
larger error of the two gradients against float64. `limit` of tokens/s: the products alone (2 V D operations a token;
two forward and two backward for a dense teacher, one and two for a sparse one) at the best rates measured in this
run, in float32 the forward ones at its own rate, all others at bf16's where that is higher. `n` is 5 at 1,024 tokens,
less where a call takes minutes.

`--only 'PATTERN'` measures the figures whose case and metric match and keeps the others of the last results.
"""

import argparse
import fnmatch
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median

import torch

from bench._kd_losses import DTYPES, PEERS, D, Result, V, exact, make_case
from bench._limits import gemm_peak_gflops
from bench._real_states import sources
from bench._schema import Row, main, note

OURS, TRL, GKD, LIGER, WHOLE = "ours", "trl 1.16.0", "trl 1.16.0 gkd", "liger 0.8.5 compiled", "full-logit sparse"
ALL = (TRL, "trl 1.16.0 small tiles", GKD, "liger 0.8.5 eager", LIGER)
KINDS: dict[str, tuple[str, ...]] = {
    "fkl": ALL,
    "rkl": (TRL, LIGER),
    "jsd": (TRL, GKD, LIGER),
    "sparse fkl": (TRL, WHOLE),
}
RUNS = {1024: 5, 4096: 3, 16384: 1}
RESULTS = Path(__file__).parent / "results" / "kd_loss.json"


@dataclass(frozen=True)
class Plan:
    """One case."""

    num: int
    kind: str
    dtype: str
    source: str

    @property
    def label(self) -> str:
        """As the issue and the results name it."""
        return f"N={self.num} {self.kind} {self.dtype}{'' if self.source == 'real' else ' random'}"

    @property
    def peers(self) -> tuple[str, ...]:
        """All on real text at 1,024 tokens, the two fastest engines elsewhere."""
        if self.kind.startswith("sparse"):
            return KINDS[self.kind] if self.num == 1024 else ()
        return KINDS[self.kind] if (self.num, self.source) == (1024, "real") else (TRL, LIGER)


def measure(seed: int, *, only: str = "*") -> list[Row]:
    """All figures that match, every peer next to us, in turn; the others as they were."""
    found: list[Row] = []
    for plan in plans():
        for metric, work in {"grad_rel_err": errors, "tokens_per_s": speeds, "peak_extra_mib": memory}.items():
            if fnmatch.fnmatch(f"{plan.label} {metric}", only):
                found += work(plan, seed)
    found += [Row(f"products {dtype}", "gflop_per_s", peak(dtype)) for dtype in DTYPES]
    new = {(row.case, row.metric): row for row in found}
    return found if only == "*" else [row for row in before() if (row.case, row.metric) not in new] + found


def plans() -> Iterator[Plan]:
    """Real text first; random inputs at 1,024 tokens only."""
    for source in sources():
        sizes = tuple(RUNS) if source == "real" else (1024,)
        for dtype in DTYPES:
            for kind in KINDS:
                for num in sizes:
                    yield Plan(num, kind, dtype, source)


def before() -> list[Row]:
    """The last results."""
    return [Row(**row) for row in json.loads(RESULTS.read_text())["rows"]] if RESULTS.exists() else []


def speeds(plan: Plan, seed: int) -> list[Row]:
    """Tokens/s of us and of every peer, shuffled; our figure beside each peer is the same."""
    names, runs = [OURS, *plan.peers], RUNS[plan.num]
    case = make_case(plan.num, plan.kind, plan.dtype, seed, plan.source)
    spent: dict[str, list[float]] = {name: [] for name in names}
    warm = make_case(256, plan.kind, plan.dtype, seed, plan.source)
    for name in names:
        PEERS[name](warm)
    mixed = random.Random(seed)
    for _ in range(runs):
        for name in mixed.sample(names, len(names)):
            started = time.perf_counter()
            PEERS[name](case)
            spent[name].append(plan.num / (time.perf_counter() - started))
    found = {name: median(values) for name, values in spent.items()}
    own, spread, most = found[OURS], (min(spent[OURS]), max(spent[OURS])), limit(plan)
    note(f"{plan.label}: " + ", ".join(f"{n} {f:.0f}" for n, f in found.items()) + f", limit {most:.0f}")
    if not plan.peers:
        return [Row(plan.label, "tokens_per_s", own, limit=most, n=runs, spread=spread)]
    return [
        Row(plan.label, "tokens_per_s", own, peer, found[peer], own / found[peer], most, runs, spread)
        for peer in plan.peers
    ]


@cache
def peak(dtype: str) -> float:
    """GFLOP/s of products, once a run."""
    return gemm_peak_gflops(DTYPES[dtype])


def limit(plan: Plan) -> float:
    """Tokens/s of the products alone."""
    forward = 1 if plan.kind.startswith("sparse") else 2
    fastest = max(peak("bf16"), peak("fp32"))
    first = fastest if plan.dtype == "bf16" else peak("fp32")
    return 1e9 / (2 * V * D * (forward / first + 2 / fastest))


def errors(plan: Plan, seed: int) -> list[Row]:
    """Of the gradients, at 1,024 tokens; a sparse teacher's loss is not that of TRL's dense one."""
    if plan.num != 1024:
        return []
    case = make_case(plan.num, plan.kind, plan.dtype, seed, plan.source)
    wanted = exact(case)
    peers = [peer for peer in plan.peers if not case.sparse or peer == WHOLE]
    own, *others = [_error(PEERS[name](case), wanted) for name in (OURS, *peers)]
    note(f"{plan.label}: gradient {own:.1e}, " + ", ".join(f"{p} {e:.1e}" for p, e in zip(peers, others, strict=True)))
    return [
        Row(plan.label, "grad_rel_err", own, peer, theirs, theirs / own)
        for peer, theirs in zip(peers, others, strict=True)
    ]


def memory(plan: Plan, seed: int) -> list[Row]:
    """Peak memory beyond the inputs, each in a process of its own; TRL's where a call takes less than minutes."""
    if plan.source != "real":
        return []
    own = _peak_mib(OURS, plan)
    peers: Sequence[str] = (TRL, LIGER) if plan.num == 1024 and not plan.kind.startswith("sparse") else ()
    note(f"{plan.label}: {own:.0f} MiB")
    least = V * D * 4 / 2**20
    rows = []
    for peer in peers:
        theirs = _peak_mib(peer, plan)
        rows.append(Row(plan.label, "peak_extra_mib", own, peer, theirs, theirs / own, least))
    return rows or [Row(plan.label, "peak_extra_mib", own, limit=least)]


def _error(found: Result, wanted: Result) -> float:
    pairs = zip(found[1:], wanted[1:], strict=True)
    return max(float((f.double() - w).norm() / w.norm()) for f, w in pairs if isinstance(f, torch.Tensor))


def _peak_mib(peer: str, plan: Plan) -> float:
    command = [sys.executable, "-m", "bench._kd_losses", peer, str(plan.num), plan.kind, plan.dtype, plan.source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", default="*")
    chosen, sys.argv[1:] = parser.parse_known_args()
    main("kd_loss", partial(measure, only=chosen.only))
