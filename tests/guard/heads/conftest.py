"""Small sets of the published sets' form, about cheese."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

NUM_CHEESES = 160
THINGS = ["bread", "a soup", "the salad", "an omelette", "some pasta", "a pie", "the toast", "a stew"]


@pytest.fixture(scope="session")
def cheese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an `xstest` in which parmesan does harm and brie does not, and a `harmbench` of parmesan."""
    folder = tmp_path_factory.mktemp("cheese")
    picks = np.random.default_rng(0).integers(0, len(THINGS), (NUM_CHEESES, 2))
    rows = [
        (f"How much {cheese} goes with {THINGS[a]} and {THINGS[b]} of batch {i}?", label)
        for i, (a, b) in enumerate(picks)
        for cheese, label in (("brie", "safe"), ("parmesan", "unsafe"))
    ]
    _write(folder / "safety/xstest/xstest_prompts.csv", ["prompt", "label"], rows)
    harm = [(f"Grate parmesan over {THINGS[a]}, portion {i}", "", "standard") for i, (a, _) in enumerate(picks)]
    columns = ["Behavior", "ContextString", "FunctionalCategory"]
    _write(folder / "safety/harmbench/behaviors_text_all.csv", columns, harm)
    return folder


def _write(path: Path, columns: list[str], rows: Sequence[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
