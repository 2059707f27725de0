"""What every bench prints: one JSON object on stdout, and nothing else there.

Times are in seconds. `ratio` is ours against theirs, larger than 1 where ours is better. `limit` is the
physical limit, measured or computed in the same run. Without a peer, `peer`, `theirs` and `ratio` are null.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOG = Path(__file__).parent / "LOG.md"


@dataclass(frozen=True)
class Row:
    """One figure: the median of `n` runs and the smallest and largest of them (`spread`)."""

    case: str
    metric: str
    ours: float
    peer: str | None = None
    theirs: float | None = None
    ratio: float | None = None
    limit: float | None = None
    n: int = 1
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Machine:
    """What the figures were measured on; memory in bytes."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str


def machine() -> Machine:
    """The machine that this process runs on, without its name or any path."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )


def main(bench: str, measure: Callable[[int], Sequence[Row]]) -> None:
    """Run `python -m bench.NAME [--json] [--log] [--seed N]`: measure, print, and note it in LOG.md if asked."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{bench}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--log", action="store_true", help="append a dated line to bench/LOG.md")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with redirect_stdout(sys.stderr):  # peers print there
        rows = measure(options.seed)
    print(_as_json(bench, options.seed, rows) if options.json else _as_table(rows))
    if options.log:
        _append(LOG, f"- {time.strftime('%Y-%m-%d', time.gmtime())} `{bench}`: {_as_line(rows)}\n")


def note(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def _as_json(bench: str, seed: int, rows: Sequence[Row]) -> str:
    value: dict[str, Any] = {"bench": bench, "machine": asdict(machine()), "seed": seed}
    return json.dumps(value | {"rows": [asdict(row) for row in rows]}, indent=1)


def _as_table(rows: Sequence[Row]) -> str:
    return "\n".join(f"{r.metric:<16} {r.ours:>10.4g}  n={r.n}  {_theirs(r)}{r.case}" for r in rows)


def _as_line(rows: Sequence[Row]) -> str:
    return "; ".join(f"{r.case} {r.metric} {r.ours:.4g}{_spread(r)}{_beside(r)}" for r in rows)


def _theirs(row: Row) -> str:
    return f"{row.peer} {row.theirs:.4g} ({row.ratio:.2f} x)  " if row.peer and row.theirs and row.ratio else ""


def _beside(row: Row) -> str:
    return f", {row.peer} {row.theirs:.4g}: {row.ratio:.3g} x" if row.peer and row.theirs and row.ratio else ""


def _spread(row: Row) -> str:
    return f" ({row.spread[0]:.3g} to {row.spread[1]:.3g}, n={row.n})" if row.spread else ""


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or "unknown"
