"""Locks between processes, on files: held by the system, so that a killed process leaves none behind."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from spiritsafe.errors import RunError, writing


@contextmanager
def locked(file: FileIO) -> Iterator[None]:
    """Hold an open file alone while the block runs; waits for whoever has it."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def claimed(folder: Path, hint: str) -> Iterator[None]:
    """Hold a folder alone, made private to its owner if it is new, while the block runs.

    Raises `RunError` with the hint if another process holds it.
    """
    with writing(folder, option="--home DIR"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(str(folder), "is in use by another process", hint) from None
        yield
    finally:
        os.close(handle)
