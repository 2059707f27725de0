"""What tests of measurements share."""

from collections.abc import Callable
from typing import Any

import pytest

from spiritsafe.models.base import Model

Muted = Callable[[Model], Any]


@pytest.fixture
def muted() -> Muted:
    """A model in whose place answers must be stored already: asking it fails."""

    class Mute:
        def __init__(self, model: Model) -> None:
            self.address, self.digest, self.score = model.address, model.digest, model.score

        def generate(self, requests: object, **_: object) -> None:
            raise AssertionError("asked again")

    return Mute
