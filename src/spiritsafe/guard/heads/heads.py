"""Fitted heads as they are used: opened from a folder, scored on a text, with the limits that their card states.

A folder holds `heads.npz` (weights alone) and `card.json` (what they are, of what, how often they err). The card
names the weights by sha256; a pair that does not match is not opened. `shipped` is the package's own folder.
"""

import io
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritsafe.errors import DataError
from spiritsafe.guard.heads import ngrams
from spiritsafe.guard.heads.pieces import COUNTS
from spiritsafe.guard.heads.second import Second
from spiritsafe.models import encoder
from spiritsafe.record import bytes_digest, read_json

SHIPPED, WEIGHTS, CARD = "shipped", "heads.npz", "card.json"
SECOND = ("english", "other")
VERSION = 2  # of the card: limits by the number of pieces
Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Heads:
    """Heads by name, in the order of the weights' columns. `linear` and `offsets` (H) give scores.

    `limits` has by head the card's: of the first stage (`limit`, `clear`, `beside`) and second (by tongue), each for
    the numbers of pieces in `COUNTS`; `clear` is one for all.
    """

    names: tuple[str, ...]
    limits: Mapping[str, Mapping[str, Sequence[float]]]
    linear: ngrams.Weights
    offsets: NDArray[np.float32]
    second: Second | None
    card: Mapping[str, Any]
    digest: str

    @property
    def by_encoder(self) -> list[str]:
        """The heads that the second stage decides."""
        return [name for name in self.names if "english" in self.limits[name]]

    def limit_of(self, name: str, kind: str, scores: Sequence[float], count: int) -> float:
        """A head's limit for a text of `count` pieces with these scores in the first stage.

        `kind` is `limit` (of the first stage; `beside` if `harmful` reaches its own) or a tongue (of the second).
        """
        at = bisect_right(COUNTS, count) - 1
        harmful = scores[self.names.index("harmful")] if "beside" in self.limits[name] else -math.inf
        if kind == "limit" and harmful >= self.limits["harmful"]["limit"][at]:
            kind = "beside"
        return self.limits[name][kind][at]

    def clear_of(self, name: str) -> float:
        """The first-stage score below which the English encoder is not asked for this head."""
        return self.limits[name]["clear"][0]

    def scores_of(self, readings: Sequence[str]) -> NDArray[np.float32]:
        """The highest score of each head over the windows of each reading, (N, H)."""
        found: NDArray[np.float32] = ngrams.scores(readings, self.linear) + self.offsets
        return found


def open_heads(source: str) -> Heads:
    """The heads of a folder, or those `shipped`; of a changed folder the new ones.

    Raises `DataError` where it holds none, or where card and weights do not belong together.
    """
    return _opened(source, stamp_of(source))


def stamp_of(source: str) -> Stamp:
    """What changes when a folder's heads do; empty for those shipped and where there are none."""
    if source == SHIPPED:
        return ()
    files = [Path(source) / name for name in (WEIGHTS, CARD)]
    return tuple((f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.is_file())


def folder_of(source: str) -> Path:
    """Where heads lie."""
    return Path(__file__).with_name(SHIPPED) if source == SHIPPED else Path(source)


@lru_cache(maxsize=4)
def _opened(source: str, stamp: Stamp) -> Heads:
    folder = folder_of(source)
    if not (folder / WEIGHTS).is_file() or not (folder / CARD).is_file():
        raise DataError(str(folder), "holds no heads", "write some: spiritsafe guard fit -o DIR")
    raw, card = (folder / WEIGHTS).read_bytes(), read_json(folder / CARD)
    digest = bytes_digest(raw)
    if digest != card["weights_sha256"]:
        raise DataError(str(folder), f"the card is of other weights ({card['weights_sha256'][:12]}, not {digest[:12]})")
    names = tuple(card["heads"])
    with np.load(io.BytesIO(raw)) as held:
        if (
            card["version"] != VERSION
            or len(held["linear"]) != ngrams.WIDTH
            or ("english" in held and len(held["english"]) != encoder.WIDTH + 1)
        ):
            raise DataError(str(folder), "holds heads of another form", "fit them again: spiritsafe guard fit -o DIR")
        linear = ngrams.packed(held["linear"].astype(np.float32))
        offsets = held["offsets"].astype(np.float32)
        second = Second(**{part: held[part].astype(float) for part in SECOND}) if "english" in held else None
    ngrams.get_ready()
    return Heads(names, card["heads"], linear, offsets, second, card, digest)
