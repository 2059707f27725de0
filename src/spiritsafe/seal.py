"""The seal of a stored exchange: its line ends with a checksum of all before it.

A seal shows an edit by hand. It has no key: whoever makes a new seal is found by the digests of stage records and
measurements, and nothing in a log shows that a line was removed.
"""

import hashlib
import json
import re
from pathlib import Path

from spiritsafe.errors import DataError

SEAL = re.compile(r',"checksum":"(?P<checksum>[0-9a-f]{32})"\}\s*$')
MEMBER = re.compile(r'"checksum"\s*:')


def is_sealed(line: str) -> bool:
    """Whether a line ends with a seal, right or wrong."""
    return SEAL.search(line) is not None


def sealed(line: str) -> str:
    """A JSON object's line with the checksum of what stands before it as its last member."""
    return f'{line[:-1]},"checksum":"{_checksum(line)}"}}'


def _checksum(line: str) -> str:
    # 128 bits: nobody stumbles on two lines of one checksum.
    return hashlib.sha256(line.encode()).hexdigest()[:32]


def unsealed(path: Path, number: int, line: str) -> str:
    """A line without its seal, if it has one. Raises `DataError` if the seal is broken."""
    seal = SEAL.search(line)
    if seal is None:
        return line
    body = f"{line[: seal.start()]}}}"
    if _checksum(body) != seal["checksum"]:
        what = f"line {number} was changed since it was written: its checksum does not match"
        raise DataError(str(path), what, "put the file back as it was, or remove that line")
    return body


def without_seal(path: Path, number: int, line: str) -> DataError:
    """What is the matter with a line that does not end with a seal."""
    back = "put the file back as it was"
    try:
        json.loads(line)
    except ValueError:
        return DataError(
            str(path), f"line {number} is broken or cut off: it is no JSON", f"{back}, or remove that line"
        )
    if MEMBER.search(line):
        what = f"line {number} was written anew by another program: its seal is not where it was"
        return DataError(str(path), what, back)
    what = f"line {number} has no seal: it was not written by spiritsafe, or was edited since"
    return DataError(str(path), what, f"{back}, or remove that line")
