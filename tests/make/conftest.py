"""A tiny teacher and its answers."""

from pathlib import Path

import pytest

from spiritsafe.models import ask, user
from spiritsafe.models.decoding.scoring import Pair
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, Sampling
from tests.tiny import WORDS


@pytest.fixture(scope="session")
def teacher_folder(tiny_folder: Path) -> Path:
    """The tiny model's directory; read only."""
    return tiny_folder


@pytest.fixture(scope="session")
def teacher(tiny: LocalModel) -> LocalModel:
    """The tiny model as a teacher; not to be trained."""
    return tiny


@pytest.fixture(scope="session")
def answers(teacher: LocalModel) -> list[Exchange]:
    """The teacher's answers to 12 prompts."""
    prompts = [user(" ".join(WORDS[i : i + 1 + i % 4])) for i in range(12)]
    return teacher.generate(ask(prompts, Sampling(seed=1, max_tokens=12)))


@pytest.fixture(scope="session")
def pairs(teacher: LocalModel, answers: list[Exchange]) -> list[Pair]:
    """The answers as (prompt ids, answer ids)."""
    return [teacher.pair(e) for e in answers]
