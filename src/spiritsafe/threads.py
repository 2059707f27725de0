"""How many threads this process computes with, and that what it computes does not depend on them.

`settle` runs when spiritsafe is imported, as the libraries read these settings once, when they load or compute first:

    SPIRITSAFE_THREADS    threads of the process; else OMP_NUM_THREADS; else the physical cores that it may use
    waiting               a thread that waits for others sleeps: spinning takes the processor from those waited for
    sums                  in one order on any number of threads in MKL's products; numpy's BLAS has one thread

A process that loaded torch or numpy before spiritsafe keeps their own number of threads and their way of waiting.
Not covered: products of other libraries (ARM, macOS, GPUs); torch's sums over more than a million numbers and its
gradients of layer norms, all in training alone. So what was used stands beside each stage and each verdict.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spiritsafe.errors import UsageError

SETTING = "SPIRITSAFE_THREADS"
OPENMP = "OMP_NUM_THREADS"
# Passive waiting for GNU's OpenMP; the same for LLVM's and Intel's, in milliseconds of spinning.
WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
BLAS = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
SUMS = "MKL_CBWR"  # conditional numerical reproducibility
CPUINFO = Path("/proc/cpuinfo")
CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")
MEMBER = Path("/proc/self/cgroup")

_decoders: set[str] = set()
_ours: list[str] = []  # the value of `OPENMP` that `settle` set, not the user
_before = [sys.modules["torch"]] if sys.modules.get("torch") else []  # loaded before its settings were made


def settle() -> None:
    """Set for the libraries what the user did not set. A setting that is no number is left to `number` to report."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
    for name in BLAS:
        os.environ.setdefault(name, "1")
    os.environ.setdefault(SUMS, _sums())
    if _whole(os.environ.get(SETTING, "")) or not _whole(os.environ.get(OPENMP, "")):
        os.environ[OPENMP] = str(_whole(os.environ.get(SETTING, "")) or allowed())
        _ours[:] = [os.environ[OPENMP]]


def number() -> int:
    """How many threads this process asks for; MKL and torch take no more than there are cores.

    Raises `UsageError` for a setting that is no number.
    """
    given = os.environ.get(SETTING, "")
    if given and not _whole(given):
        raise UsageError(f"{SETTING}={given}", "is not a number of threads", "a whole number from 1 on")
    if _before:
        return int(_before[0].get_num_threads())
    return _whole(given) or _whole(os.environ.get(OPENMP, "")) or allowed()


def computed() -> dict[str, Any]:
    """What this process computes with: threads, the settings that fix the order of sums, and what decoded so far."""
    settings = {name: os.environ.get(name, "") for name in (SUMS, BLAS[0])}
    return {"threads": number(), **settings, **({"decoders": sorted(_decoders)} if _decoders else {})}


def decoded_by(name: str) -> None:
    """Note which decoder wrote an answer: they sum in different orders, so log-probabilities differ in last bits."""
    _decoders.add(name)


def says(known: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether one note of what was computed with holds all that another does."""
    return all(name in known and known[name] == value for name, value in now.items())


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two processes computed with, in a line; empty if with the same, or if it is not known of the first."""
    changed = [name for name in now if name in before and before[name] != now[name]]
    return ", ".join(f"{name} {before[name] or 'unset'} then, {now[name] or 'unset'} now" for name in changed)


def allowed() -> int:
    """Physical cores that this process may use, by affinity and by the quota of its control groups; at least one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone
    cpus = sorted(affinity(0)) if affinity else range(os.cpu_count() or 1)
    cores = {_text(CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in cpus}
    return max(1, int(min(len(cores), *_quotas(), float(len(cpus)))))


@contextmanager
def unset_for_children() -> Iterator[None]:
    """Processes that are started meanwhile choose their own number of threads, unless the user chose it."""
    value = os.environ.get(OPENMP)
    ours = value in _ours and SETTING not in os.environ
    if ours:
        del os.environ[OPENMP]
    try:
        yield
    finally:
        if ours and value is not None:
            os.environ[OPENMP] = value


def _whole(text: str) -> int:
    """The first number of a list, as OpenMP takes one for each level; 0 if it is none."""
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*(,.*)?", text)
    return int(found[1]) if found else 0


def _sums() -> str:
    """The widest products that MKL has with one order of summation for any number of threads."""
    try:
        with CPUINFO.open() as info:
            flags = set(info.read(1 << 14).split())  # the first processor is enough
    except OSError:
        flags = set()
    return "AVX512,STRICT" if "avx512f" in flags else "AVX2,STRICT" if "avx2" in flags else "COMPATIBLE"


def _quotas() -> Iterator[float]:
    """Processors by the quota of each control group that this process is in, of version 2 or 1."""
    for line in _text(MEMBER).split("\n"):
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kinds and "cpu" not in kinds.split(","):
            continue
        # In a container the path may be the host's: only its beginning, the group that is mounted, is there.
        for group in (path, *map(str, Path(path).parents)):
            folder = CGROUPS.joinpath(*(["cpu"] if kinds else []), group.lstrip("/"))
            quota, period = _quota(folder, kinds)
            if quota > 0 and period > 0:
                yield quota / period


def _quota(folder: Path, kinds: str) -> tuple[int, int]:
    """Microseconds of processor time in a period, and the period; 0 if there is no bound."""
    if kinds:
        return _whole(_text(folder / "cpu.cfs_quota_us")), _whole(_text(folder / "cpu.cfs_period_us"))
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return _whole(quota), _whole(period)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
