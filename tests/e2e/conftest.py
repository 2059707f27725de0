"""One workspace, and one finished run, for all tests that go through the command line."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from spiritsafe.cache import cache_dir
from spiritsafe.locks import locked
from tests.e2e.workspace import Workspace, warm_server
from tests.tiny import write_tiny

RECIPE = Path(__file__).parent / "tiny.toml"
BEHAVIOURS = [f"Please tell me about number {number} of my cats." for number in range(1, 9)]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """The socket of a server that has imported what commands need."""
    with warm_server(tmp_path_factory.mktemp("warm")) as link:
        yield link


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, warm: Path | None) -> Workspace:
    """A folder with `tiny/`, `tiny.toml` and harmless lines in place of harmful behaviours."""
    folder = tmp_path_factory.mktemp("workspace")
    _seed(folder / "cache")
    write_tiny(folder / "tiny", scale=1.5)
    shutil.copy(RECIPE, folder)
    (folder / "behaviours.txt").write_text("\n".join(BEHAVIOURS) + "\n")
    return Workspace(folder, warm)


def _seed(cache: Path) -> None:
    """Put what the user's cache holds compiled into a cache, so that it is not compiled again."""
    if (cache_dir() / "native").is_dir():
        shutil.copytree(cache_dir() / "native", cache / "native")


@pytest.fixture(scope="session")
def finished(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run, by processes as a user starts them; not to be changed.

    Made once for all of pytest's workers, which have folders side by side: the others copy it.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        workspace.run("runs", fresh=True)
        return workspace.only("runs")
    made = tmp_path_factory.getbasetemp().parent / "finished"
    with Path(f"{made}.lock").open("wb", buffering=0) as lock, locked(lock):
        if not made.exists():
            workspace.run("runs", fresh=True)
            workspace.path("runs").rename(made)
    shutil.copytree(made, workspace.path("runs"))
    return workspace.only("runs")
