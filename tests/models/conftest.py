"""A tiny random model, as a directory, opened, and as a GGUF file."""

from pathlib import Path

import pytest

from spiritsafe.models import open_model
from spiritsafe.models.local import LocalModel
from tests.tiny import write_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory; read only."""
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", scale=1.0)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> LocalModel:
    """The tiny model, opened."""
    model = open_model(str(tiny_folder))
    assert isinstance(model, LocalModel)
    return model
