"""A tiny teacher and its answers."""

from pathlib import Path

import pytest

from spiritsafe.models import ask, open_model, user
from spiritsafe.models.local import LocalModel
from spiritsafe.models.scoring import Pair
from spiritsafe.record import Exchange, Sampling
from tests.tiny import WORDS, write_tiny


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory; read only."""
    return write_tiny(tmp_path_factory.mktemp("make") / "teacher", scale=1.5)


@pytest.fixture(scope="session")
def teacher(teacher_folder: Path) -> LocalModel:
    """The tiny teacher; not to be trained."""
    model = open_model(str(teacher_folder))
    assert isinstance(model, LocalModel)
    return model


@pytest.fixture(scope="session")
def answers(teacher: LocalModel) -> list[Exchange]:
    """The teacher's answers to 12 prompts."""
    prompts = [user(" ".join(WORDS[i : i + 1 + i % 4])) for i in range(12)]
    return teacher.generate(ask(prompts, Sampling(seed=1, max_tokens=12)))


@pytest.fixture(scope="session")
def pairs(teacher: LocalModel, answers: list[Exchange]) -> list[Pair]:
    """The answers as (prompt ids, answer ids)."""
    return [teacher.pair(e) for e in answers]
