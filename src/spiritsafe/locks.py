"""Locks between processes, on files: held by the system, so that a killed process leaves none behind."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from spiritsafe.errors import RunError, SpiritsafeError, writing


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

    A new folder in which nothing was left is removed if the block ends with an error. Raises `RunError` with the hint
    if another process holds it.
    """
    is_new = not folder.exists()
    with writing(folder, option="--home DIR"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(str(folder), "is in use by another process", hint) from None
        try:
            yield
        except SpiritsafeError:
            if is_new and [path.name for path in folder.iterdir()] == [".lock"]:
                shutil.rmtree(folder)
            raise
    finally:
        os.close(handle)
