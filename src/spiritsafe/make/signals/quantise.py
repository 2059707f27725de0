"""Probabilities as one byte: levels of the log-probability whose distance grows as the mass shrinks.

An error of the log-probability costs total variation in proportion to the mass, so likely tokens get fine
levels and unlikely ones coarse ones. Level 255 is kept for sampled tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
LEVELS, REACH = 255, 12


@dataclass(frozen=True)
class Precision:
    """Distance of levels in nats: `finest` at probability 1, growing by exp(`growth` x nats), up to `coarsest`."""

    finest: float = 0.0069
    growth: float = 0.653
    coarsest: float = 1.8

    def __post_init__(self) -> None:
        if self.nats[-1] < REACH:
            what = f"{self.finest}, {self.growth}, {self.coarsest}: {LEVELS} levels reach {self.nats[-1]:.1f} nats"
            raise ValueError(f"{what}, must reach {REACH}")

    @cached_property
    def nats(self) -> Floats:
        """What each level stands for, as minus the log-probability (255)."""
        found = [0.0]
        while len(found) < LEVELS:
            found.append(found[-1] + min(self.coarsest, self.finest * float(np.exp(self.growth * found[-1]))))
        return np.array(found, np.float32)

    def levels(self, logprobs: Floats) -> Bytes:
        """The nearest level of each log-probability; the last one where it is smaller than all."""
        borders = (self.nats[1:] + self.nats[:-1]) / 2
        return np.searchsorted(borders, -logprobs).astype(np.uint8)

    def probs(self, levels: Bytes) -> Floats:
        """The probability each level stands for; 0 for samples (255)."""
        table = np.append(np.exp(-self.nats), 0).astype(np.float32)
        found: Floats = table[levels]
        return found
