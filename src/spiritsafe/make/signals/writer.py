"""Writes a cache of signals, exchange by exchange; after any kill it continues behind the last whole record."""

from pathlib import Path
from typing import Any

from spiritsafe.errors import DataError, writing
from spiritsafe.make.signals.coder import Coder, Rows, open_coder
from spiritsafe.make.signals.manifest import write_or_check
from spiritsafe.make.signals.shard import Found, body, header, index, record, shard_path, shards
from spiritsafe.record import digest_of

SHARD_TOKENS = 32768


class Writer:
    """Appends exchanges to a cache in `folder`; `has` says which are there already. One writer at a time."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, shard_tokens: int = SHARD_TOKENS) -> None:
        write_or_check(folder, manifest)
        self._folder, self._vocab, self._most = folder, int(manifest["vocab"]), shard_tokens
        self._digest = digest_of(manifest)
        paths = shards(folder)
        self._number = int(paths[-1].stem) if paths else 0
        self._there: set[str] = set()
        last: list[Found] = []
        for path in paths:
            last, end = index(path, self._digest, last=path == paths[-1])
            self._there.update(one.exchange for one in last)
        if paths and end < paths[-1].stat().st_size:
            with writing(paths[-1]), paths[-1].open("r+b") as file:
                file.truncate(end)
        self._tokens = sum(one.num for one in last)
        self._coder = caught_up(last, self._vocab)

    def has(self, exchange: str) -> bool:
        """Whether the exchange is in the cache."""
        return exchange in self._there

    def add(self, exchange: str, rows: Rows) -> None:
        """Append an exchange, in one write."""
        if self.has(exchange):
            raise ValueError(f"{exchange} is in the cache already")
        if self._tokens >= self._most:
            self._number, self._tokens, self._coder = self._number + 1, 0, open_coder(self._vocab)
        num, width = rows.ids_TK.shape
        data = record(exchange, self._coder.encode(rows), num=num, width=width)
        path = shard_path(self._folder, self._number)
        with writing(path), path.open("ab") as file:
            file.write(data if file.tell() else header(self._digest) + data)
        self._tokens += num
        self._there.add(exchange)


def caught_up(found: list[Found], vocab: int) -> Coder:
    """A coder that has seen these records."""
    coder = open_coder(vocab)
    for one in found:
        try:
            coder.decode(body(one), one.num, one.width)
        except ValueError as error:
            raise DataError(str(one.path), f"exchange {one.exchange}: {error}", "delete the cache") from None
    return coder
