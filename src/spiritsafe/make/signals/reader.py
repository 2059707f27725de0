"""Reads a cache of signals: any exchange by its id, also while the cache is still being written."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spiritsafe.errors import DataError
from spiritsafe.make.signals.coder import SAMPLE, Rows, open_coder
from spiritsafe.make.signals.kinds import SparseSignal
from spiritsafe.make.signals.manifest import check, read_manifest
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.shard import Found, body, index, shards
from spiritsafe.record import digest_of

MEMORY_BYTES = 1 << 30


class SignalCache:
    """A cache in `folder`, checked against the keys of `expected` (`teacher`, `exchanges`, ...: see `manifest_of`).

    Shards are decoded whole, and kept decoded up to `memory_bytes`. Raises `DataError` where the cache is of
    something else, or is damaged.
    """

    def __init__(
        self, folder: Path, expected: dict[str, Any] | None = None, *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        check(folder, expected or {})
        self._precision = Precision(**self.manifest["keep"]["precision"])
        self._memory, self._decoded = memory_bytes, OrderedDict[Path, dict[str, Rows]]()
        self._found: dict[str, Found] = {}
        self._order: dict[Path, list[Found]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again at what has been written."""
        paths = shards(self.folder)
        for path in paths:
            found, _ = index(path, digest_of(self.manifest), last=path == paths[-1])
            if len(found) != len(self._order.get(path, [])):
                self._decoded.pop(path, None)
            self._order[path] = found
            self._found.update({one.exchange: one for one in found})

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The ids of all exchanges it holds, in the order of writing."""
        return tuple(self._found)

    @property
    def digest(self) -> str:
        """Of all it holds now."""
        return digest_of([self.manifest, [[one.exchange, one.checksum] for one in self._found.values()]])

    def rows(self, exchange: str) -> Rows:
        """An exchange's rows as they are stored. Raises `DataError` where they are missing or damaged."""
        if exchange not in self._found:
            what = f"holds no signals of exchange {exchange} ({len(self._found)} others)"
            raise DataError(str(self.folder), what, "capture again: it continues where it stopped")
        path = self._found[exchange].path
        if path not in self._decoded:
            self._decoded[path] = decoded(self._order[path], int(self.manifest["vocab"]))
            while len(self._decoded) > 1 and self._held() > self._memory:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(path)
        return self._decoded[path][exchange]

    def tokens(self, exchange: str) -> tuple[int, ...]:
        """The answer's tokens, whose predictions are stored."""
        return tuple(self.rows(exchange).tokens_T.tolist())

    def signal(self, exchange: str) -> SparseSignal:
        """The teacher's signal at each answer token of an exchange."""
        return signal_of(self.rows(exchange), self._precision)

    def _held(self) -> int:
        return sum(rows.nbytes for shard in self._decoded.values() for rows in shard.values())


def decoded(found: list[Found], vocab: int) -> dict[str, Rows]:
    """All exchanges of a shard."""
    coder, rows = open_coder(vocab), {}
    for one in found:
        try:
            rows[one.exchange] = coder.decode(body(one), one.num, one.width)
        except ValueError as error:
            what = f"exchange {one.exchange} cannot be decoded ({error})"
            raise DataError(str(one.path), what, "delete the cache and capture again") from None
    return rows


def signal_of(rows: Rows, precision: Precision) -> SparseSignal:
    """Rows as probabilities: the tail's stored mass, the head scaled to the rest, so that all sum to 1.

    Samples share the tail's mass equally; then no tail is left over.
    """
    sampled_TK = rows.levels_TK == SAMPLE
    heads_TK = precision.probs(rows.levels_TK) * (rows.ids_TK >= 0)
    mass_T, num_T = heads_TK.sum(-1), sampled_TK.sum(-1)
    tails_T = np.where(mass_T > 0, precision.probs(rows.tails_T), 1)
    scale_T = np.where(mass_T > 0, (1 - tails_T) / np.maximum(mass_T, 1e-30), 0)
    shares_TK = sampled_TK * (tails_T / np.maximum(num_T, 1))[:, None]
    probs_TK = heads_TK * scale_T[:, None] + shares_TK
    return SparseSignal(
        torch.from_numpy(rows.ids_TK).long(),
        torch.from_numpy(probs_TK.astype(np.float32)),
        torch.from_numpy(np.where(num_T > 0, 0, tails_T).astype(np.float32)),
    )
