"""What several tests share: the root of the repository, a recipe with every key written out, a tiny model."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from spiritsafe.cli import main
from spiritsafe.recipe import parse_recipe
from tests.said import without_progress
from tests.tiny import write_tiny

if TYPE_CHECKING:
    from spiritsafe.models.local import LocalModel

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background or under nohup; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # models that tests write themselves; stderr is compared
settings.register_profile("untimed", deadline=None)  # no test is about time: the machine may be busy
settings.load_profile("untimed")

Call = Callable[..., tuple[int, str, str]]

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


def pytest_collection() -> None:
    """While tests are imported all that is made stays; to look for garbage takes a quarter of that time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is collected, but not looked for among what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The exit code of `spiritsafe WORDS` in a folder of its own, and what it says on stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spiritsafe", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, without_progress(said.err)

    return called


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture
def small_recipe() -> dict[str, Any]:
    """A small valid recipe, resolved: every key is there, defaults too."""
    return parse_recipe(SMALL).model_dump(mode="json")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as a Hugging Face directory; read only."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny", scale=1.5)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> "LocalModel":
    """The tiny model, opened; not to be trained."""
    from spiritsafe.models import open_model
    from spiritsafe.models.local import LocalModel

    model = open_model(str(tiny_folder))
    assert isinstance(model, LocalModel)
    return model
