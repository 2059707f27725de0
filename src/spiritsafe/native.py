"""C++ of our own, compiled at first use with the machine's compiler and kept in the user's cache.

The library's name is the digest of source, compiler, processor and torch, so a stale one is never loaded; nor is one
that another user could have put there (`cache`).
Where there is no compiler, callers fall back to plain torch or numpy; `SPIRITSAFE_NATIVE=0` forces that.
"""

import ctypes
import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from importlib import import_module, metadata, util
from pathlib import Path

from spiritsafe.cache import is_kept, keep, private_dir
from spiritsafe.errors import writing
from spiritsafe.record import digest_of

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno", "-Wall")
EXACT = "-ffp-contract=off"


class NativeWarning(UserWarning):
    """A kernel could not be built; the slower fallback is used."""


@functools.cache
def native(source: Path, *, torch: bool = False, exact: bool = False) -> ctypes.CDLL | None:
    """The compiled library of a C++ file, or None where it cannot be built (warned of once) or is switched off.

    With `torch=True` it is linked against the installed torch, whose OpenMP runtime it then shares. With `exact=True`
    each float operation is rounded by itself, so that a source which fixes their order gives the same bits everywhere.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if os.environ.get("SPIRITSAFE_NATIVE") == "0":
        return None
    if compiler is None:
        warnings.warn("no C++ compiler: slower fallbacks are used (install g++)", NativeWarning, stacklevel=2)
        return None
    target = private_dir("native") / f"{source.stem}-{_identity(source, compiler, torch, exact)}.so"
    if not is_kept(target) and (problem := _compile(source, compiler, target, torch, exact)):
        warnings.warn(f"{source.name} did not compile, a slower fallback is used: {problem}", NativeWarning, 2)
        return None
    if torch:
        import_module("torch")  # its libraries must be loaded first
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        warnings.warn(f"{source.name} does not load, a slower fallback is used: {error}", NativeWarning, 2)
        return None


def processor_flags() -> frozenset[str]:
    """What the processor can do, by the kernel's names (`avx512f`, `amx_bf16`, ...); empty where unknown."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(found[0].split()) if found else frozenset()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    return bool(processor_flags() & {"avx512_bf16", "amx_bf16"})


def _identity(source: Path, compiler: str, torch: bool, exact: bool = False) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    linked = metadata.version("torch") if torch else ""
    flags = [*FLAGS, EXACT] if exact else FLAGS
    return digest_of([*_texts(source), version, linked, sorted(processor_flags()), platform.machine(), flags])[:16]


def _texts(source: Path) -> list[str]:
    """A source and what it includes of our own."""
    text = source.read_text()
    return [text, *(part for name in re.findall(r'#include "(.+)"', text) for part in _texts(source.parent / name))]


def _compile(source: Path, compiler: str, target: Path, torch: bool, exact: bool) -> str:
    """Build `target`, whole or not at all; returns what went wrong."""
    with writing(target):
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".compiling-"))
    try:
        built = scratch / target.name
        flags = [*FLAGS, EXACT] if exact else FLAGS
        command = [compiler, *flags, str(source), "-o", str(built), *(_torch_libraries() if torch else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["the compiler failed"])[0]
        keep(built, target)
        return ""
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _torch_libraries() -> list[str]:
    found = util.find_spec("torch")
    assert found
    assert found.origin
    folder = Path(found.origin).parent / "lib"
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", "-ltorch_cpu", "-lc10", "-Wl,--no-as-needed"]
