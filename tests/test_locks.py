"""Locks between processes."""

import stat
from pathlib import Path

import pytest

from spiritsafe.errors import RunError
from spiritsafe.locks import claimed


def test_a_folder_is_held_by_one_at_a_time_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    with claimed(folder, "stop it"):
        with pytest.raises(RunError, match="home: is in use by another process; stop it"):
            claimed(folder, "stop it").__enter__()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with claimed(folder, "stop it"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/home"):
        claimed(tmp_path / "file" / "home", "").__enter__()
