"""Shards: files of records, one for each exchange, that are only ever appended to.

A file begins with `SPSG`, the format's version and 16 bytes of the manifest's digest. A record is a header
(lengths, CRC-32 of all that follows it, a checksum of these), the exchange's id and the coded rows. A last record
that is not all there is torn, and ignored; anything else that does not add up is damage. Each record continues the
entropy model of those before it, which starts anew in every shard: to read one, the shard is decoded up to it.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from spiritsafe.errors import DataError

VERSION = 4
HEAD = struct.Struct("<4sI16s")
RECORD = struct.Struct("<HHIIIH")  # bytes of the id, entries a row, rows, bytes of the rows, checksum, header's own
SUFFIX = ".signals"


@dataclass(frozen=True)
class Found:
    """Where a shard holds an exchange."""

    exchange: str
    path: Path
    start: int
    size: int
    num: int
    width: int
    checksum: int


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"{number:05d}{SUFFIX}"


def shards(folder: Path) -> list[Path]:
    """All shards, in order."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def header(manifest: str) -> bytes:
    """The first bytes of a shard of the cache with this manifest (hex digest)."""
    return HEAD.pack(b"SPSG", VERSION, bytes.fromhex(manifest)[:16])


def record(exchange: str, data: bytes, *, num: int, width: int) -> bytes:
    """The bytes of one exchange."""
    name = exchange.encode()
    lengths = (len(name), width, num, len(data), _checksum(name, data, num, width))
    return RECORD.pack(*lengths, _header_checksum(*lengths)) + name + data


def index(path: Path, manifest: str, *, last: bool) -> tuple[list[Found], int]:
    """The whole records of a shard and where they end; only the last shard may end within a record."""
    data, wanted = path.read_bytes(), header(manifest)
    if data[: HEAD.size] != wanted[: len(data)]:
        raise DataError(str(path), _difference(data, wanted), "it belongs to another cache: delete it and run again")
    found: list[Found] = []
    at = HEAD.size if len(data) >= HEAD.size else 0
    while at < len(data):
        one = _record_at(path, data, at) if at else None
        if one is None:
            if not last:
                after = f"after exchange {found[-1].exchange}" if found else "at its first exchange"
                raise DataError(str(path), f"ends within a record, {after}", "delete the cache and run again")
            break
        found.append(one)
        at = one.start + one.size
    return found, at


def body(found: Found) -> bytes:
    """An exchange's coded rows. Raises `DataError` where they are not what was written."""
    with found.path.open("rb") as file:
        file.seek(found.start)
        data = file.read(found.size)
    if _checksum(found.exchange.encode(), data, found.num, found.width) != found.checksum:
        what = f"exchange {found.exchange} is damaged: its checksum does not match"
        raise DataError(str(found.path), what, "delete this shard and capture again")
    return data


def _record_at(path: Path, data: bytes, at: int) -> Found | None:
    start = at + RECORD.size
    if start > len(data):
        return None
    name, width, num, size, checksum, own = RECORD.unpack_from(data, at)
    if own != _header_checksum(name, width, num, size, checksum):
        what = f"the record at byte {at} is damaged: its header's checksum does not match"
        raise DataError(str(path), what, "delete this shard and capture again")
    if start + name + size > len(data):
        return None
    exchange = data[start : start + name].decode(errors="replace")
    return Found(exchange, path, start + name, size, num, width, checksum)


def _checksum(name: bytes, data: bytes, num: int, width: int) -> int:
    return zlib.crc32(data, zlib.crc32(name + struct.pack("<II", num, width)))


def _header_checksum(*lengths: int) -> int:
    return zlib.crc32(struct.pack("<5I", *lengths)) & 0xFFFF


def _difference(data: bytes, wanted: bytes) -> str:
    if data[:4] != wanted[:4] or len(data) < HEAD.size:
        return "is not a shard of signals"
    found, ours = HEAD.unpack_from(data), HEAD.unpack(wanted)
    if found[1] != ours[1]:
        return f"has format {found[1]}, expected {ours[1]}"
    return f"belongs to manifest {found[2].hex()}, expected {ours[2].hex()}"
