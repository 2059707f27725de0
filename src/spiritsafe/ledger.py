"""The ledger: tokens, seconds, joules and money of each stage, and which artefact came from which.

Joules come from the processor's own counter (RAPL) where it can be read, else they are processor seconds
times the recipe's assumed watts, and marked as an estimate. Money is wall time at the recipe's rate.
"""

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from spiritsafe import threads
from spiritsafe.recipe import LedgerPart

RAPL = Path("/sys/class/powercap")
LEAVES_OUT = (
    "training of the teacher itself",
    "installation and downloads",
    "attempts that were killed before their stage ended",
    "people's time",
    "the rest of the machine: memory, disk, cooling, idle power",
)


class Entry(BaseModel):
    """What one stage used: seconds, tokens, joules, US dollars; inputs and outputs by sha256.

    `computed` is with how many threads and which order of sums (`threads`); empty where it is not known.
    """

    stage: str
    wall_s: float = 0.0
    cpu_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    joules: float = 0.0
    joules_kind: Literal["measured", "estimated"] = "estimated"
    usd: float = 0.0
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    computed: dict[str, Any] = {}

    def count(self, *, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Add tokens read and written by a model in this stage."""
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out


@contextmanager
def metered(stage: str, rates: LedgerPart) -> Iterator[Entry]:
    """Measure a stage; the entry is complete when the block ends."""
    entry = Entry(stage=stage)
    started, cpu, meter = time.perf_counter(), _cpu_s(), _read_joules()
    yield entry
    entry.computed = threads.computed()
    entry.wall_s, entry.cpu_s = time.perf_counter() - started, _cpu_s() - cpu
    after = _read_joules()
    if meter is not None and after is not None and after >= meter:
        entry.joules, entry.joules_kind = after - meter, "measured"
    else:
        entry.joules = entry.cpu_s * rates.assumed_watts
    entry.usd = entry.wall_s / 3600 * rates.usd_per_hour


def summary(entries: Sequence[Mapping[str, Any]], rates: LedgerPart) -> dict[str, Any]:
    """The ledger of a run: its stages, their totals, the rates, and what it leaves out."""
    names = ("wall_s", "cpu_s", "tokens_in", "tokens_out", "joules", "usd")
    measured = bool(entries) and all(e["joules_kind"] == "measured" for e in entries)
    return {
        "stages": list(entries),
        "totals": {name: sum(e[name] for e in entries) for name in names},
        "joules_kind": "measured" if measured else "estimated",
        "assumed_watts": rates.assumed_watts,
        "usd_per_hour": rates.usd_per_hour,
        "leaves_out": list(LEAVES_OUT),
    }


def _cpu_s() -> float:
    """Of this process and the children it waited for; `os.times` would count in ticks of 10 ms."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _read_joules() -> float | None:
    total, found = 0.0, False
    for meter in sorted(RAPL.glob("intel-rapl:*/energy_uj")):
        if meter.parent.name.count(":") > 1:
            continue
        try:
            total, found = total + int(meter.read_text()) / 1e6, True
        except OSError:
            return None
    return total if found else None
