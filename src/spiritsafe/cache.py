"""Where this user's downloads, converted models and compiled kernels are kept."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache: `$SPIRITSAFE_CACHE`, else `$XDG_CACHE_HOME/spiritsafe`, else `~/.cache/spiritsafe`."""
    named = os.environ.get("SPIRITSAFE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spiritsafe"


@contextmanager
def scratch_dir(parent: Path, prefix: str) -> Iterator[Path]:
    """A directory to make something in before it is renamed into place; removed afterwards if still there.

    It is locked while in use, so that `sweep` tells it from what a killed process left.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        scratch = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        handle = _locked(scratch, fcntl.LOCK_EX)
        if handle is not None and scratch.exists():
            break
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(handle)


def sweep(parent: Path, prefix: str) -> None:
    """Remove scratch directories that no process uses any more."""
    for leftover in parent.glob(f"{prefix}*"):
        handle = _locked(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if handle is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(handle)


def _locked(folder: Path, how: int) -> int | None:
    """A handle that holds the directory's lock; None where it is in use or gone."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
