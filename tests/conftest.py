"""What several tests share: the root of the repository and a recipe with every key written out."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from spiritsafe.recipe import parse_recipe

settings.register_profile("untimed", deadline=None)  # no test is about time: the machine may be busy
settings.load_profile("untimed")

SMALL: dict[str, Any] = {
    "run": {"name": "small"},
    "teacher": {"model": "fake:teacher"},
    "prompts": {"num_train": 4, "num_heldout": 2, "tasks": [{"family": "basic_arithmetic", "num": 2}]},
    "guard": {
        "accounts": [
            {"name": "drawer", "role": "draws", "exchanges": 4},
            {"name": "ordinary", "role": "ordinary", "num": 2, "exchanges": [1, 2]},
            {"name": "calibration", "role": "calibration", "num": 19, "exchanges": 1},
        ]
    },
    "make": {"num_layers": 1},
}


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture
def small_recipe() -> dict[str, Any]:
    """A small valid recipe, resolved: every key is there, defaults too."""
    return parse_recipe(SMALL).model_dump(mode="json")
