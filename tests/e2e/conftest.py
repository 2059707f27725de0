"""One workspace, and one finished run, for all tests that go through the command line."""

import shutil
from pathlib import Path

import pytest

from spiritsafe.cache import cache_dir
from tests.e2e.workspace import Workspace
from tests.tiny import write_tiny

RECIPE = Path(__file__).parent / "tiny.toml"
BEHAVIOURS = [f"Please tell me about number {number} of my cats." for number in range(1, 9)]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A folder with `tiny/`, `tiny.toml` and harmless lines in place of harmful behaviours."""
    folder = tmp_path_factory.mktemp("workspace")
    _seed(folder / "cache")
    write_tiny(folder / "tiny", scale=1.5)
    shutil.copy(RECIPE, folder)
    (folder / "behaviours.txt").write_text("\n".join(BEHAVIOURS) + "\n")
    return Workspace(folder)


def _seed(cache: Path) -> None:
    """Put what the user's cache holds compiled into a cache, so that it is not compiled again."""
    if (cache_dir() / "native").is_dir():
        shutil.copytree(cache_dir() / "native", cache / "native")


@pytest.fixture(scope="session")
def finished(workspace: Workspace) -> Path:
    """The directory of a finished run; not to be changed."""
    workspace.run("runs")
    return workspace.only("runs")
