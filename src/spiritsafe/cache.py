"""Where this user's downloads, converted models and compiled kernels are kept.

What is loaded from here as code or as a program's tables is taken only from folders that no other user can write to,
and only if it is the file that this user wrote, by owner, mode and digest (`private_dir`, `keep`, `is_kept`).
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spiritsafe.errors import DataError, writing
from spiritsafe.record import file_digest, write_atomic

PACKAGE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
VERSION = (
    r"(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?"
    r"(?:\+[a-z0-9]+(?:[._-][a-z0-9]+)*)?"
)
BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_dir() -> Path:
    """The user's cache: `$SPIRITSAFE_CACHE`, else `$XDG_CACHE_HOME/spiritsafe`, else `~/.cache/spiritsafe`."""
    named = os.environ.get("SPIRITSAFE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spiritsafe"


def wheel_member(rest: str) -> tuple[str, str, str] | None:
    """Name, version and file of `PACKAGE==VERSION/FILE`; None if it is of another form.

    Names and versions are those of PyPA's specifications (PEP 508, PEP 440), so none can be an option of pip's.
    """
    found = re.fullmatch(rf"({PACKAGE})==({VERSION})/(.+)", rest, re.DOTALL)
    if not found or not found[3].isprintable() or "\\" in found[3]:
        return None
    return (found[1], found[2], found[3]) if {"", ".", ".."}.isdisjoint(found[3].split("/")) else None


def private_dir(name: str) -> Path:
    """A folder of the cache, made if need be, that this user alone can write to.

    Raises `DataError` if it or the cache belongs to another user.
    """
    root = cache_dir()
    folder = root / name
    for each in (root, folder):
        with writing(each):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = each.stat()
        is_shared = each == root and found.st_mode & stat.S_ISVTX  # as /tmp: others cannot move what is ours
        if found.st_uid != os.geteuid() and not (is_shared and found.st_uid == 0):
            hint = "set SPIRITSAFE_CACHE to a folder of your own"
            raise DataError(str(each), f"belongs to another user ({found.st_uid}), who could put code there", hint)
        if found.st_mode & BY_OTHERS and not is_shared:
            each.chmod(stat.S_IMODE(found.st_mode) & ~BY_OTHERS)
    return folder


def keep(made: Path, target: Path) -> None:
    """Move a finished file to its place in a private folder, for this user's eyes, its digest noted beside it."""
    with writing(target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made.chmod(0o600)
        write_atomic(_note(target), file_digest(made) + "\n")
        made.replace(target)


def is_kept(path: Path) -> bool:
    """Whether a file is there as `keep` left it: a plain file of this user's, written by no one since."""
    if not (is_own(path) and is_own(_note(path))):
        return False
    return _note(path).read_text(encoding="utf-8", errors="replace").strip() == file_digest(path)


def is_own(path: Path) -> bool:
    """Whether a plain file is there that belongs to this user and that no other can write to."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & BY_OTHERS


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


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
